//! Acting as somebody else: what `--as` asks for, which rights that takes, and Clusternet's way of carrying a cluster's own credential in
//! the same headers. Reads header texts; sends nothing.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::attributes::{Attributes, ResourceAttributes, Target};
use super::rbac::SERVICE_ACCOUNT_PREFIX;
use super::{Refusal, User};

/// The user whom Clusternet's clients impersonate when the extras carry the cluster's own credential (clusternet, `pkg/hub/apiserver/proxies`).
pub const CLUSTERNET_USER: &str = "clusternet";
const CLUSTERNET_PREFIX: &str = "clusternet-";
/// What the headers begin with.
pub const HEADER_PREFIX: &str = "impersonate-";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// The group of the resources `userextras` and `uids`.
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// Whom a request wants to act as.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Impersonation {
    /// Name, groups and extra attributes.
    pub user: User,
    /// A UID.
    pub uid: Option<String>,
}

/// What proves a request to the cluster itself, in place of the agent's impersonation. Its secrets show in no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCredential {
    /// A bearer token of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A client certificate of the cluster, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its private key, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
    /// Whom this credential itself impersonates in the cluster: `user`, `uid` and `group`, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub impersonate: Vec<(String, String)>,
}

impl ClusterCredential {
    /// A bearer token alone.
    pub fn bearer(token: &str) -> Self {
        ClusterCredential {
            token: Some(token.to_owned()),
            certificate: None,
            private_key: None,
            impersonate: Vec::new(),
        }
    }

    /// Whom it impersonates in the cluster, if anybody.
    pub fn impersonated_user(&self) -> Option<&str> {
        let found = self.impersonate.iter().find(|(field, _)| field == "user");
        found.map(|(_, name)| name.as_str())
    }

    /// What it is, without what it says.
    pub fn kind(&self) -> &'static str {
        match self.token {
            Some(_) => "token",
            None => "certificate",
        }
    }
}

impl fmt::Debug for ClusterCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterCredential({})", self.kind())
    }
}

/// What the impersonation headers of a request ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    /// There are none.
    Nothing,
    /// To act as somebody.
    Act(Impersonation),
    /// To use a credential of the cluster itself.
    Credential(ClusterCredential),
}

/// Reads the headers whose names begin with [`HEADER_PREFIX`]; `None` as a value is one that is no UTF-8.
pub fn asked<'a>(headers: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Result<Asked, Refusal> {
    let mut wanted = Impersonation::default();
    let mut named = false;
    let mut any = false;
    for (name, value) in headers {
        let Some(field) = name.strip_prefix(HEADER_PREFIX) else {
            continue;
        };
        let value = value.ok_or_else(|| bad(&format!("header {name} is not UTF-8")))?;
        any = true;
        match field {
            "user" if named => return Err(bad("Impersonate-User stands twice")),
            "user" => {
                value.clone_into(&mut wanted.user.name);
                named = true;
            }
            "group" => wanted.user.groups.push(value.to_owned()),
            "uid" => wanted.uid = Some(value.to_owned()),
            _ => add_extra(&mut wanted.user, name, value)?,
        }
    }
    match (any, wanted.user.name.is_empty()) {
        (false, _) => Ok(Asked::Nothing),
        (true, true) => Err(bad(
            "groups, a UID or extra attributes are impersonated without a user; add Impersonate-User (--as)",
        )),
        (true, false) => with_credential(wanted),
    }
}

fn add_extra(user: &mut User, name: &str, value: &str) -> Result<(), Refusal> {
    let unknown = || bad(&format!("header {name} is no impersonation header that this hub knows"));
    let key = name
        .strip_prefix(EXTRA_PREFIX)
        .filter(|key| !key.is_empty())
        .ok_or_else(unknown)?;
    let key = percent_decode_str(key)
        .decode_utf8()
        .map_err(|_| unknown())?
        .to_ascii_lowercase();
    user.extra.entry(key).or_default().push(value.to_owned());
    Ok(())
}

fn bad(message: &str) -> Refusal {
    Refusal::new(400, "BadRequest", message)
}

fn with_credential(wanted: Impersonation) -> Result<Asked, Refusal> {
    let carries = wanted.user.extra.keys().any(|key| key.starts_with(CLUSTERNET_PREFIX));
    if wanted.user.name != CLUSTERNET_USER || !carries {
        return Ok(Asked::Act(wanted));
    }
    let mut extra = wanted.user.extra;
    let mut take = |key: &str| extra.remove(key).and_then(|values| values.into_iter().next());
    let token = take("clusternet-token");
    let certificate = take("clusternet-certificate")
        .map(|text| pem("clusternet-certificate", &text))
        .transpose()?;
    let private_key = take("clusternet-privatekey")
        .map(|text| pem("clusternet-privatekey", &text))
        .transpose()?;
    if token.is_none() && (certificate.is_none() || private_key.is_none()) {
        return Err(bad(
            "the cluster's credential is not complete: clusternet-token, or clusternet-certificate and clusternet-privatekey",
        ));
    }
    let mut impersonate = Vec::new();
    for field in ["user", "uid", "group"] {
        let values = extra.remove(&format!("clusternet-impersonate-{field}")).unwrap_or_default();
        impersonate.extend(values.into_iter().map(|value| (field.to_owned(), value)));
    }
    if let Some(key) = extra.keys().next() {
        return Err(bad(&format!(
            "Clusternet has no extra attribute {key:?}; left out, the request would do less than it asks for"
        )));
    }
    Ok(Asked::Credential(ClusterCredential {
        token,
        certificate,
        private_key,
        impersonate,
    }))
}

/// Base64 of PEM, as Clusternet's clients send it.
fn pem(key: &str, text: &str) -> Result<String, Refusal> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| bad(&format!("{key} is not base64 of PEM")))?;
    String::from_utf8(bytes).map_err(|_| bad(&format!("{key} is not base64 of PEM")))
}

/// Namespace and name of the ServiceAccount whose user this is.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The groups of every ServiceAccount in a namespace.
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

impl Impersonation {
    /// Who this is. A ServiceAccount that is impersonated without groups has those of its namespace, as kube-apiserver does it, and no right to
    /// them is asked for.
    pub fn into_user(self) -> User {
        let mut user = self.user;
        if let (Some((namespace, _)), true) = (service_account(&user.name), user.groups.is_empty()) {
            user.groups = service_account_groups(namespace);
        }
        user
    }

    /// The rights that it takes, each `impersonate` on one thing (kubernetes.io/docs/reference/access-authn-authz/authentication,
    /// "User impersonation").
    pub fn rights(&self) -> Vec<Attributes> {
        let user = match service_account(&self.user.name) {
            Some((namespace, name)) => {
                let mut right = Attributes::cluster_scoped("impersonate", "", "serviceaccounts", name);
                if let Target::Resource(resource) = &mut right.target {
                    resource.namespace = Some(namespace.to_owned());
                }
                right
            }
            None => Attributes::cluster_scoped("impersonate", "", "users", &self.user.name),
        };
        let groups = self.user.groups.iter();
        let groups = groups.map(|group| Attributes::cluster_scoped("impersonate", "", "groups", group));
        let uid = self
            .uid
            .iter()
            .map(|uid| Attributes::cluster_scoped("impersonate", AUTHENTICATION_GROUP, "uids", uid));
        let extra = extra_rights(&self.user.extra);
        std::iter::once(user).chain(groups).chain(uid).chain(extra).collect()
    }
}

fn extra_rights(extra: &BTreeMap<String, Vec<String>>) -> impl Iterator<Item = Attributes> {
    let pairs = extra
        .iter()
        .flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
    pairs.map(|(key, value)| Attributes {
        verb: "impersonate".to_owned(),
        target: Target::Resource(ResourceAttributes {
            group: AUTHENTICATION_GROUP.to_owned(),
            resource: "userextras".to_owned(),
            subresource: Some(key.clone()),
            name: Some(value.clone()),
            ..ResourceAttributes::default()
        }),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Result<Asked, Refusal> {
        asked(headers.iter().map(|(name, value)| (*name, Some(*value))))
    }

    #[test]
    fn as_and_as_group_take_a_right_each() {
        let Asked::Act(wanted) = read(&[
            ("accept", "*/*"),
            ("impersonate-user", "bob"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-example.org%2fscopes", "view"),
            ("impersonate-uid", "7"),
        ])
        .unwrap() else {
            panic!("not an impersonation")
        };
        assert_eq!(wanted.user.groups, ["dev", "ops"]);
        let rights: Vec<String> = wanted.rights().iter().map(|right| right.forbidden_to("a")).collect();
        assert_eq!(rights.len(), 5);
        assert!(rights[0].starts_with("users \"bob\" is forbidden: User \"a\" cannot impersonate resource \"users\""));
        assert!(rights[4].contains("userextras/example.org/scopes"), "{rights:?}");
        let Asked::Act(account) = read(&[("impersonate-user", "system:serviceaccount:shop:web")]).unwrap() else {
            panic!("not an impersonation")
        };
        assert_eq!(account.rights().len(), 1);
        assert!(account.rights()[0].to_string().contains("in the namespace \"shop\""));
        assert!(account.user.groups.is_empty(), "what was stated goes on as it is");
        let groups = account.into_user().groups;
        assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:shop"]);
    }

    #[test]
    fn headers_that_say_half_of_it_are_refused() {
        assert_eq!(read(&[("accept", "*/*")]), Ok(Asked::Nothing));
        for headers in [
            &[("impersonate-group", "system:masters")][..],
            &[("impersonate-user", "a"), ("impersonate-user", "b")],
            &[("impersonate-user", "a"), ("impersonate-shoe-size", "45")],
            &[
                ("impersonate-user", "clusternet"),
                ("impersonate-extra-clusternet-certificate", "eA=="),
            ],
            &[
                ("impersonate-user", "clusternet"),
                ("impersonate-extra-clusternet-token", "t"),
                ("impersonate-extra-clusternet-x", "y"),
            ],
            &[
                ("impersonate-user", "clusternet"),
                ("impersonate-extra-clusternet-certificate", "%"),
                ("impersonate-extra-clusternet-privatekey", "%"),
            ],
        ] {
            assert_eq!(read(headers).unwrap_err().code, 400, "{headers:?}");
        }
        assert_eq!(asked([("impersonate-user", None)]).unwrap_err().code, 400);
    }

    #[test]
    fn clusternets_extras_carry_the_clusters_own_credential() {
        let Asked::Credential(credential) = read(&[
            ("impersonate-user", "clusternet"),
            ("impersonate-extra-clusternet-token", "secret"),
            ("impersonate-extra-clusternet-impersonate-user", "bob"),
            ("impersonate-extra-clusternet-impersonate-group", "dev"),
        ])
        .unwrap() else {
            panic!("not a credential")
        };
        assert_eq!(credential.token.as_deref(), Some("secret"));
        assert_eq!(credential.impersonate.len(), 2);
        assert!(!format!("{credential:?}").contains("secret"));
        let plain = read(&[("impersonate-user", "clusternet")]).unwrap();
        assert!(matches!(plain, Asked::Act(_)), "without extras it is a user like any other");
    }
}
