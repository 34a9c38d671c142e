//! Kubeconfigs for the hub and the clusters behind it, as values: contexts for what a user may reach, and how they come into a file that has
//! others. Keeps whatever it does not know.

use serde_json::{Value, json};

/// The context of the hub itself.
pub const HUB_CONTEXT: &str = "hub";
/// The lists of a kubeconfig, with the field of an entry's content.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];
/// Fields that name files, relative to the file that they stand in.
const FILE_FIELDS: [&str; 4] = ["certificate-authority", "client-certificate", "client-key", "tokenFile"];

/// A cluster that a user may reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reachable {
    /// Its context's name.
    pub name: String,
    /// Path of its API on the hub.
    pub path: String,
}

/// How a kubeconfig reaches the hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubEntry {
    /// The content of its cluster entry.
    pub cluster: Value,
    /// The content of its user entry.
    pub user: Value,
    /// The name of its user entry.
    pub user_name: String,
}

/// Why a kubeconfig does not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeconfigError {
    /// It has no such entry.
    #[error("it has no {kind} {name:?}")]
    Missing {
        /// `context`, `cluster` or `user`.
        kind: &'static str,
        /// The name that was looked for.
        name: String,
    },
    /// It is no kubeconfig.
    #[error("it is not a kubeconfig: {0}")]
    Malformed(String),
    /// An entry of another hub or cluster would be lost.
    #[error("it has a {kind} {name:?} that belongs elsewhere ({server})")]
    Taken {
        /// `context` or `cluster`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where it leads.
        server: String,
    },
}

impl HubEntry {
    /// Reads a context, the current one unless it is stated. Names of files become absolute below `folder`.
    pub fn read(config: &Value, context: Option<&str>, folder: &str) -> Result<Self, KubeconfigError> {
        let name = context.or_else(|| config["current-context"].as_str()).unwrap_or_default();
        let context = content(config, "contexts", "context", name)?;
        let part = |field: &str| context[field].as_str().unwrap_or_default().to_owned();
        let (cluster, user_name) = (part("cluster"), part("user"));
        Ok(HubEntry {
            cluster: with_absolute_files(content(config, "clusters", "cluster", &cluster)?, folder),
            user: with_absolute_files(content(config, "users", "user", &user_name)?, folder),
            user_name,
        })
    }

    /// Where the hub is, without a path.
    pub fn origin(&self) -> String {
        origin(self.cluster["server"].as_str().unwrap_or_default()).to_owned()
    }

    /// A kubeconfig with a context for the hub and one for each cluster, their names behind `prefix`; the user is named after the hub as well,
    /// so that two hubs' users stand side by side.
    pub fn contexts(&self, clusters: &[Reachable], prefix: &str) -> Value {
        let origin = self.origin();
        let host = origin.rsplit('/').next().unwrap_or_default();
        let suffix = format!("@{host}");
        let user = format!("{}{suffix}", self.user_name.strip_suffix(&suffix).unwrap_or(&self.user_name));
        let hub = Reachable {
            name: HUB_CONTEXT.to_owned(),
            path: String::new(),
        };
        let mut config = json!({"apiVersion": "v1", "kind": "Config", "current-context": format!("{prefix}{HUB_CONTEXT}"),
            "clusters": [], "users": [{"name": user, "user": self.user}], "contexts": []});
        for reachable in std::iter::once(&hub).chain(clusters) {
            let name = format!("{prefix}{}", reachable.name);
            let mut cluster = self.cluster.clone();
            cluster["server"] = format!("{origin}{}", reachable.path).into();
            push(&mut config, "clusters", json!({"name": name, "cluster": cluster}));
            push(
                &mut config,
                "contexts",
                json!({"name": name, "context": {"cluster": name, "user": user}}),
            );
        }
        config
    }
}

/// The file with the new entries in it: those of the same name and the same hub are replaced, everything else stays, the current context too.
pub fn merge(file: Value, new: &Value) -> Result<Value, KubeconfigError> {
    let mut file = match file {
        Value::Null => json!({"apiVersion": "v1", "kind": "Config"}),
        Value::Object(_) => file,
        _ => return Err(KubeconfigError::Malformed("it is no mapping".to_owned())),
    };
    check_taken(&file, new)?;
    for (list, _) in LISTS {
        match &mut file[list] {
            Value::Array(_) => {}
            missing @ Value::Null => *missing = json!([]),
            _ => return Err(KubeconfigError::Malformed(format!("{list} is no list"))),
        }
        for entry in new[list].as_array().into_iter().flatten() {
            replace(&mut file[list], entry);
        }
    }
    if file["current-context"].as_str().unwrap_or_default().is_empty() {
        file["current-context"] = new["current-context"].clone();
    }
    Ok(file)
}

fn check_taken(file: &Value, new: &Value) -> Result<(), KubeconfigError> {
    for entry in new["contexts"].as_array().into_iter().flatten() {
        let name = entry["name"].as_str().unwrap_or_default();
        let ours = origin(server_of(new, name)).to_owned();
        let led = content(file, "contexts", "context", name).map(|context| context["cluster"].as_str().unwrap_or_default());
        for (kind, cluster) in [("context", led.ok()), ("cluster", Some(name))] {
            let server = cluster.map(|cluster| server_of(file, cluster)).unwrap_or_default();
            if !server.is_empty() && origin(server) != ours {
                return Err(KubeconfigError::Taken {
                    kind,
                    name: name.to_owned(),
                    server: server.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn server_of<'a>(config: &'a Value, cluster: &str) -> &'a str {
    let found = content(config, "clusters", "cluster", cluster).ok();
    found.and_then(|cluster| cluster["server"].as_str()).unwrap_or_default()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find('/').map_or(url.len(), |at| begin + at);
    &url[..end]
}

fn content<'a>(config: &'a Value, list: &str, field: &'static str, name: &str) -> Result<&'a Value, KubeconfigError> {
    let entries = config[list].as_array().into_iter().flatten();
    let found = entries.rev().find(|entry| entry["name"] == name);
    found.map(|entry| &entry[field]).ok_or_else(|| KubeconfigError::Missing {
        kind: field,
        name: name.to_owned(),
    })
}

fn with_absolute_files(entry: &Value, folder: &str) -> Value {
    let mut entry = entry.clone();
    for field in FILE_FIELDS {
        if let Some(path) = entry[field]
            .as_str()
            .filter(|path| !path.is_empty() && !path.starts_with('/'))
        {
            entry[field] = format!("{folder}/{path}").into();
        }
    }
    entry
}

fn push(config: &mut Value, list: &str, entry: Value) {
    if let Some(list) = config[list].as_array_mut() {
        list.push(entry);
    }
}

fn replace(list: &mut Value, entry: &Value) {
    let Some(list) = list.as_array_mut() else { return };
    match list.iter_mut().find(|known| known["name"] == entry["name"]) {
        Some(known) => known.clone_from(entry),
        None => list.push(entry.clone()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn admin() -> Value {
        json!({"current-context": "hub",
            "clusters": [{"name": "hub", "cluster": {"server": "https://hub:8443", "certificate-authority": "ca.crt"}}],
            "users": [{"name": "alice", "user": {"token": "t", "tokenFile": "/run/token"}}],
            "contexts": [{"name": "hub", "context": {"cluster": "hub", "user": "alice"}}]})
    }

    fn written(prefix: &str) -> Value {
        let entry = HubEntry::read(&admin(), None, "/etc").unwrap();
        let edge = Reachable {
            name: "edge".to_owned(),
            path: "/sockets/1".to_owned(),
        };
        entry.contexts(&[edge], prefix)
    }

    #[test]
    fn each_cluster_is_a_context_of_the_same_user() {
        let config = written("shop-");
        assert_eq!(config["current-context"], "shop-hub");
        assert_eq!(config["users"][0]["name"], "alice@hub:8443");
        assert_eq!(config["users"][0]["user"], json!({"token": "t", "tokenFile": "/run/token"}));
        assert_eq!(
            config["clusters"][1],
            json!({"name": "shop-edge", "cluster": {"server": "https://hub:8443/sockets/1", "certificate-authority": "/etc/ca.crt"}})
        );
        assert_eq!(
            config["contexts"][1]["context"],
            json!({"cluster": "shop-edge", "user": "alice@hub:8443"})
        );
        let again = HubEntry::read(&config, None, "").unwrap();
        assert_eq!(again.contexts(&[], "")["users"][0]["name"], "alice@hub:8443");
        assert!(matches!(
            HubEntry::read(&admin(), Some("x"), ""),
            Err(KubeconfigError::Missing { kind: "context", .. })
        ));
    }

    #[test]
    fn what_is_there_stays_and_what_belongs_elsewhere_is_not_taken() {
        let other = json!({"kind": "Config", "preferences": {"colors": true}, "current-context": "work",
            "clusters": [{"name": "work", "cluster": {"server": "https://work"}}], "contexts": null});
        let merged = merge(other.clone(), &written("")).unwrap();
        assert_eq!(
            (&merged["current-context"], &merged["preferences"]),
            (&json!("work"), &other["preferences"])
        );
        assert_eq!(merged["clusters"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            merge(merged.clone(), &written("")).unwrap(),
            merged,
            "once more changes nothing"
        );
        assert_eq!(merge(Value::Null, &written("")).unwrap()["current-context"], "hub");
        let taken = json!({"clusters": [{"name": "edge", "cluster": {"server": "https://work"}}]});
        assert!(matches!(
            merge(taken, &written("")),
            Err(KubeconfigError::Taken { kind: "cluster", .. })
        ));
        let taken = json!({"clusters": [{"name": "c", "cluster": {"server": "https://work"}}],
            "contexts": [{"name": "hub", "context": {"cluster": "c"}}]});
        assert!(matches!(
            merge(taken, &written("")),
            Err(KubeconfigError::Taken { kind: "context", .. })
        ));
        assert!(merge(json!([]), &written("")).is_err() && merge(json!({"users": 1}), &written("")).is_err());
    }
}
