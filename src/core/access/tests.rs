//! Access decisions, case by case.

#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;

const CLUSTER: &str = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";

fn key() -> KeyDigest {
    KeyDigest::of_public_key(b"key")
}

fn holder(name: &str, organizations: &[&str]) -> Identity {
    let subject = Subject {
        common_name: name.to_owned(),
        organizations: organizations.iter().map(|&organization| organization.to_owned()).collect(),
    };
    identify(subject, key())
}

#[test]
fn a_certificate_makes_an_agent_or_a_user_and_never_both() {
    let agent = holder(&format!("{CLUSTER_PREFIX}{CLUSTER}"), &[AGENTS]);
    assert_eq!(authorize_agent(&agent, &CLUSTER.parse().unwrap()).unwrap(), &key());
    for (name, organizations) in [
        (format!("{CLUSTER_PREFIX}{CLUSTER}"), vec![ADMINS]),
        ("alice".to_owned(), vec![ADMINS, AGENTS]),
        (format!("{CLUSTER_PREFIX}../etc"), vec![AGENTS]),
        (String::new(), vec![ADMINS]),
    ] {
        let nobody = holder(&name, &organizations);
        assert!(matches!(nobody, Identity::Anonymous(Anonymity::NotUnderstood(_))), "{name}");
        assert_eq!(user_of(&nobody).unwrap_err().code, 401);
    }
}

fn need(user: &User, impersonation: Vec<Attributes>) -> Need {
    let right = Attributes::of_request("GET", "/apis/apps.clusternet.io/v1alpha1/subscriptions", "");
    Need {
        user: user.clone(),
        impersonation,
        subject: user.clone(),
        any: vec![right.clone()],
        told: right,
    }
}

#[test]
fn admins_may_do_everything_and_others_hear_what_would_let_them() {
    let policy = Policy::default();
    let admin = holder("branchline:admin", &[ADMINS]);
    let admin = user_of(&admin).unwrap();
    assert_eq!(need(admin, Vec::new()).check(&policy), Ok(AllowedBy::Administrators));
    let bob = holder("bob", &["dev", "ops"]);
    let bob = user_of(&bob).unwrap();
    let other = need(bob, Vec::new()).check(&policy).unwrap_err();
    assert_eq!((other.code, other.reason), (403, "Forbidden"));
    assert_eq!(
        other.message,
        "subscriptions.apps.clusternet.io is forbidden: User \"bob\" cannot list resource \"subscriptions\" in API group \
         \"apps.clusternet.io\" at the cluster scope; RBAC objects below hub/ in the source repository grant it: \
         {apiGroups: [\"apps.clusternet.io\"], resources: [\"subscriptions\"], verbs: [\"list\"]}"
    );
    let expired = user_of(&Identity::Anonymous(Anonymity::Expired)).unwrap_err();
    assert_eq!(expired.code, 401);
    assert!(expired.message.contains("has expired"), "{expired}");
}

#[test]
fn acting_as_an_administrator_takes_a_right_of_ones_own() {
    let bob = User {
        name: "bob".to_owned(),
        ..User::default()
    };
    let as_admin = User {
        name: "x".to_owned(),
        groups: vec![ADMINS.to_owned()],
        ..User::default()
    };
    let wanted = impersonation::Impersonation {
        user: as_admin.clone(),
        uid: None,
    };
    let need = Need {
        subject: as_admin,
        ..need(&bob, wanted.rights())
    };
    let refusal = need.check(&Policy::default()).unwrap_err();
    assert!(
        refusal.message.contains("User \"bob\" cannot impersonate resource \"users\""),
        "{refusal}"
    );
}

#[test]
fn an_agent_opens_its_own_tunnel_and_nothing_else() {
    let agent = holder(&format!("{CLUSTER_PREFIX}{CLUSTER}"), &[AGENTS]);
    let other: ClusterId = "11111111-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap();
    assert_eq!(authorize_agent(&agent, &other).unwrap_err().code, 403);
    assert_eq!(user_of(&agent).unwrap_err().code, 403);
    let admin = holder("branchline:admin", &[ADMINS]);
    assert_eq!(authorize_agent(&admin, &other).unwrap_err().code, 403);
    assert_eq!(
        authorize_agent(&Identity::Anonymous(Anonymity::NoCertificate), &other)
            .unwrap_err()
            .code,
        401
    );
}

#[test]
fn key_digests_are_those_of_kubeadm() {
    let digest = KeyDigest::of_public_key(b"");
    assert_eq!(
        digest.as_str(),
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(digest.as_str().to_uppercase().replace("SHA256", "sha256").parse(), Ok(digest));
    assert!("sha256:abc".parse::<KeyDigest>().is_err());
    assert!("e3b0c442".parse::<KeyDigest>().is_err());
}

#[test]
fn a_refusal_is_a_status() {
    let mut refusal = Refusal::forbidden("no");
    assert_eq!(refusal.to_status()["code"], 403);
    assert_eq!(refusal.to_status().get("details"), None);
    refusal.retry_after_seconds = 1;
    assert_eq!(refusal.to_status()["details"]["retryAfterSeconds"], 1);
}

#[test]
fn certificates_are_renewed_at_two_thirds_of_their_life() {
    let start = SystemTime::UNIX_EPOCH;
    assert_eq!(
        renewal_time(start, start + Duration::from_secs(90)),
        start + Duration::from_secs(60)
    );
    assert_eq!(
        renewal_time(start + Duration::from_secs(9), start),
        start + Duration::from_secs(9)
    );
}
