//! ID tokens of an OpenID Connect issuer: who they let in, which ones are refused and why, and what becomes of them when the issuer changes its
//! keys, against a hub process and a small issuer.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::credentials::{ACCESS, SUBSCRIPTIONS, code, refusal, with_token};
use crate::support::fleet::Hub;
use crate::support::issuer::{Issuer, changed, now, sign};
use crate::support::repository::GitRepo;
use crate::support::{holds, scratch, wait_until};

/// Claims that let the holder read Subscriptions.
fn good(issuer: &Issuer) -> Value {
    issuer.claims("ann", &["people"])
}

/// A hub that takes this issuer's tokens, not started yet.
fn hub(issuer: &Issuer) -> (Hub, GitRepo, tempfile::TempDir) {
    let directory = scratch("issuer");
    let access = ACCESS.replace("name: people}]", "name: 'oidc:people'}]");
    let repo = GitRepo::with(&[("hub/access.yaml", &access)]);
    let hub = issuer.taken_by(Hub::prepare("hub", &repo), directory.path());
    (hub, repo, directory)
}

#[test]
fn id_tokens_count_when_their_issuer_signed_them_for_this_hub() {
    let (issuer, elsewhere) = (Issuer::start(), Issuer::start());
    let (mut hub, _repo, _directory) = hub(&issuer);
    hub.start_again();
    let claims = good(&issuer);
    let ask = |token: &str| code(&with_token(&hub, token), SUBSCRIPTIONS);
    let first = issuer.token("first", &claims);
    assert_eq!((ask(&first), ask(&issuer.token("rsa", &claims))), (200, 200));
    for skew in [
        changed(&claims, "exp", json!(now() - 10)),
        changed(&claims, "nbf", json!(now() + 20)),
    ] {
        assert_eq!(ask(&issuer.token("first", &skew)), 200, "clocks may differ by half a minute");
    }
    assert_eq!(
        ask(&issuer.token("first", &changed(&claims, "groups", json!(["others"])))),
        403
    );

    let symmetric = EncodingKey::from_base64_secret(&BASE64_STANDARD.encode("a key that is public")).unwrap();
    let (_, rest) = first.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    let unsigned = format!("{}.{payload}.", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    let critical = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"first","crit":["x"]}"#);
    let forged = format!(
        "{}{}",
        &first[..first.len() - 4],
        if first.ends_with("AAAA") { "BBBB" } else { "AAAA" }
    );
    let with = |claim: &str, value: Value| issuer.token("first", &changed(&claims, claim, value));
    for (token, reason) in [
        (sign(Algorithm::HS256, "first", &claims, &symmetric), "--oidc-signing-algs"),
        (unsigned, "--oidc-signing-algs"),
        (format!("{critical}.{payload}.{signature}"), "critical"),
        (forged, "signature"),
        (elsewhere.token("first", &claims), "signature"),
        (with("aud", json!("other")), "audience"),
        (with("exp", json!(now() - 60)), "expired"),
        (with("nbf", json!(now() + 3600)), "not valid yet"),
        (with("hd", json!("example.com")), "\"hd\""),
        (with("email", json!("system:admin")), "reserved"),
        (with("iss", json!(elsewhere.url())), "not known here"),
    ] {
        let (status, message) = refusal(&with_token(&hub, &token), SUBSCRIPTIONS);
        assert!(status == 401 && message.contains(reason), "{reason}: {status} {message}");
    }
}

#[test]
fn an_issuer_that_is_down_or_changes_its_keys_disturbs_nobody_else() {
    let issuer = Issuer::start();
    let (mut hub, _repo, _directory) = hub(&issuer);
    issuer.set_down(true);
    hub.start_again();
    let claims = good(&issuer);
    let client = |key: &str| with_token(&hub, &issuer.token(key, &claims));
    let (status, message) = refusal(&client("first"), SUBSCRIPTIONS);
    assert!(status == 401 && message.contains("cannot be fetched"), "{status} {message}");
    assert_eq!(code(&hub.client(), SUBSCRIPTIONS), 200, "certificates do not need the issuer");
    let wait = |key: &str, wanted: u16| {
        wait_until(&format!("a token by the key {key} gets {wanted}"), || {
            let (status, message) = refusal(&client(key), SUBSCRIPTIONS);
            holds(status == wanted, format!("{status} {message}"))
        });
    };
    issuer.set_down(false);
    wait("first", 200);
    issuer.set_down(true);
    assert_eq!(
        code(&client("first"), SUBSCRIPTIONS),
        200,
        "keys that are known go on counting"
    );
    issuer.set_down(false);
    issuer.add_key("second");
    issuer.withdraw_key("first");
    wait("second", 200);
    let (status, message) = refusal(&client("first"), SUBSCRIPTIONS);
    assert!(
        status == 401 && message.contains("does not publish"),
        "a key that was withdrawn: {status} {message}"
    );

    issuer.replace_key("second");
    wait("second", 200);
    let (before, elsewhere) = (issuer.fetches(), Issuer::start());
    for number in 0..50 {
        let key = format!("made-up-{number}");
        elsewhere.add_key(&key);
        assert_eq!(code(&with_token(&hub, &elsewhere.token(&key, &claims)), SUBSCRIPTIONS), 401);
    }
    let fetched = issuer.fetches() - before;
    assert!(fetched <= 20, "made-up key ids make the hub ask {fetched} times");
}
