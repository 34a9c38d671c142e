//! Whom an agent lets the hub impersonate in its cluster: the word of the cluster's owner, which outranks the hub's.

use super::User;

/// Names that Kubernetes itself gives meaning to begin with this; they are covered only by a pattern that begins with it too.
const SYSTEM: &str = "system:";
/// The group that bypasses authorisation; only its full name allows it.
const MASTERS: &str = "system:masters";
/// kube-apiserver adds it to everybody whom it authenticates, so it says nothing.
const AUTHENTICATED: &str = super::rbac::AUTHENTICATED;

/// A name, or the beginning of names with `*` behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamePattern(String);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a name nor the beginning of one with a * at its end")]
pub struct InvalidPattern(String);

impl std::str::FromStr for NamePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || name.contains('*') || text.trim() != text {
            return Err(InvalidPattern(text.to_owned()));
        }
        Ok(NamePattern(text.to_owned()))
    }
}

impl NamePattern {
    fn covers(&self, name: &str) -> bool {
        let Some(prefix) = self.0.strip_suffix('*') else {
            return self.0 == name;
        };
        let meant = name != MASTERS && (!name.starts_with(SYSTEM) || prefix.starts_with(SYSTEM));
        meant && name.starts_with(prefix)
    }
}

/// Users and groups that may be impersonated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImpersonationLimits {
    /// Users.
    pub users: Vec<NamePattern>,
    /// Groups.
    pub groups: Vec<NamePattern>,
}

impl Default for ImpersonationLimits {
    /// Everybody but Kubernetes' own users and groups.
    fn default() -> Self {
        let everybody = || vec![NamePattern("*".to_owned())];
        ImpersonationLimits {
            users: everybody(),
            groups: everybody(),
        }
    }
}

impl ImpersonationLimits {
    /// Whether this user may be impersonated; else who says so and what lets it.
    pub fn check(&self, user: &User) -> Result<(), String> {
        let covered = |patterns: &[NamePattern], name: &str| patterns.iter().any(|pattern| pattern.covers(name));
        if !covered(&self.users, &user.name) {
            return Err(refusal("user", &user.name, "--allow-users"));
        }
        let refused = |group: &&String| *group != AUTHENTICATED && !covered(&self.groups, group);
        if let Some(group) = user.groups.iter().find(refused) {
            return Err(refusal("group", group, "--allow-groups"));
        }
        match user.extra.keys().find(|key| is_kubernetes_own(key)) {
            None => Ok(()),
            Some(key) => Err(format!(
                "the agent of this cluster impersonates nobody with the extra attribute {key:?}: it is Kubernetes' own"
            )),
        }
    }
}

/// Attributes that kube-apiserver sets itself, for example the pod of a ServiceAccount's token.
fn is_kubernetes_own(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    ["kubernetes.io", "k8s.io"]
        .iter()
        .any(|own| domain == *own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
}

fn refusal(what: &str, name: &str, flag: &str) -> String {
    format!(
        "the owner of this cluster does not let its agent impersonate {what} {name:?}; the agent's flag {flag} lists who may be impersonated"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            ..User::default()
        }
    }

    fn limits(users: &[&str], groups: &[&str]) -> ImpersonationLimits {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        ImpersonationLimits {
            users: parse(users),
            groups: parse(groups),
        }
    }

    #[test]
    fn kubernetes_own_names_need_the_owners_word() {
        let unless_told = ImpersonationLimits::default();
        assert_eq!(unless_told.check(&user("alice", &["dev", "system:authenticated"])), Ok(()));
        for (name, groups) in [
            ("system:admin", vec![]),
            ("system:serviceaccount:kube-system:x", vec![]),
            ("alice", vec!["system:masters"]),
            ("alice", vec!["dev", "system:nodes"]),
            ("alice", vec!["system:serviceaccounts:kube-system"]),
        ] {
            assert!(unless_told.check(&user(name, &groups)).is_err(), "{name} {groups:?}");
        }
        let told = limits(&["alice", "system:serviceaccount:*"], &["system:*"]);
        assert_eq!(
            told.check(&user("system:serviceaccount:a:b", &["system:serviceaccounts"])),
            Ok(())
        );
        let masters = told.check(&user("alice", &["system:masters"])).unwrap_err();
        assert!(
            masters.contains("\"system:masters\"") && masters.contains("--allow-groups"),
            "{masters}"
        );
        assert_eq!(
            limits(&["*"], &["system:masters"]).check(&user("alice", &["system:masters"])),
            Ok(())
        );
        assert!(told.check(&user("bob", &[])).unwrap_err().contains("--allow-users"));
        assert!(
            told.check(&user("alice", &["dev"])).is_err(),
            "a list that is stated is the whole list"
        );
    }

    #[test]
    fn attributes_that_kubernetes_sets_are_not_made_up() {
        let mut somebody = user("alice", &[]);
        somebody.extra.insert("example.org/team".to_owned(), vec!["a".to_owned()]);
        assert_eq!(ImpersonationLimits::default().check(&somebody), Ok(()));
        somebody
            .extra
            .insert("authentication.kubernetes.io/pod-name".to_owned(), vec!["x".to_owned()]);
        assert!(ImpersonationLimits::default().check(&somebody).is_err());
    }

    #[test]
    fn patterns_are_names_or_beginnings() {
        for wrong in ["", " a", "a*b", "**"] {
            assert!(wrong.parse::<NamePattern>().is_err(), "{wrong}");
        }
    }
}
