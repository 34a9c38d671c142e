//! Repository addresses, parsed to a typed form before they reach the `git` program. Schemes other than path, file, ssh and https are refused,
//! because some of git's transports run programs (`ext::`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a repository is.
#[derive(Clone, PartialEq, Eq)]
pub enum RepositoryUrl {
    /// On this machine: read in place.
    Local(PathBuf),
    /// Elsewhere: an ssh or https URL, as git takes it.
    Remote(String),
}

/// A text that is no address that we use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url:?} is not a repository address: {reason} (use a path, file:///path, ssh://host/path, user@host:path or https://host/path)"
)]
pub struct InvalidUrl {
    url: String,
    reason: &'static str,
}

impl FromStr for RepositoryUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidUrl {
            url: without_secrets(text),
            reason,
        };
        if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(invalid("it is empty, begins with a dash or has control characters"));
        }
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(RepositoryUrl::Local(path.into()))
            } else {
                Err(invalid("file:// takes an absolute path"))
            };
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            return match scheme {
                "https" | "ssh" if host.is_empty() || host.starts_with('-') => Err(invalid("it names no host")),
                "https" | "ssh" => Ok(RepositoryUrl::Remote(text.to_owned())),
                "http" | "git" => Err(invalid("the transport is not encrypted")),
                _ => Err(invalid("the scheme is not supported")),
            };
        }
        if text.contains("::") {
            return Err(invalid("remote helpers are not supported"));
        }
        match text.split_once(':') {
            // scp-like: the part before the colon has no slash, else it is a path.
            Some((host, path)) if !host.contains('/') && !path.is_empty() => {
                if host
                    .rsplit('@')
                    .next()
                    .is_none_or(|host| host.is_empty() || host.starts_with('-'))
                {
                    return Err(invalid("it names no host"));
                }
                Ok(RepositoryUrl::Remote(text.to_owned()))
            }
            _ => Ok(RepositoryUrl::Local(text.into())),
        }
    }
}

impl fmt::Display for RepositoryUrl {
    /// Without secrets, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepositoryUrl::Local(path) => path.display().fmt(f),
            RepositoryUrl::Remote(url) => f.write_str(&without_secrets(url)),
        }
    }
}

impl fmt::Debug for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text without the secrets of the addresses in it. Of http(s) the whole user goes, because a token may stand in place of the name as well as of
/// the password; of ssh the user is no secret.
pub(super) fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        let (authority, behind) = after.split_at(end);
        shown = shown + before + "://";
        match authority.rsplit_once('@') {
            None => shown += authority,
            Some((_, host)) if before.ends_with("http") || before.ends_with("https") => shown += host,
            Some((user, host)) => shown = shown + user.split(':').next().unwrap_or_default() + "@" + host,
        }
        rest = behind;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn knows_the_usual_addresses() {
        let remote = |text: &str| RepositoryUrl::Remote(text.to_owned());
        let parse = |text: &str| text.parse::<RepositoryUrl>().unwrap();
        assert_eq!(parse("/srv/repo.git"), RepositoryUrl::Local("/srv/repo.git".into()));
        assert_eq!(parse("file:///srv/repo.git"), RepositoryUrl::Local("/srv/repo.git".into()));
        assert_eq!(parse("../repo"), RepositoryUrl::Local("../repo".into()));
        assert_eq!(parse("git@host:team/repo.git"), remote("git@host:team/repo.git"));
        assert_eq!(parse("ssh://git@host/repo"), remote("ssh://git@host/repo"));
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        for (text, shown) in [
            ("https://u:secret@host/repo", "https://host/repo"),
            ("https://ghp_secret@host/repo@1", "https://host/repo@1"),
            ("https://secret:x-oauth-basic@host", "https://host"),
            ("https://host/repo", "https://host/repo"),
            ("ssh://git:secret@host/repo", "ssh://git@host/repo"),
            ("git@host:team/repo.git", "git@host:team/repo.git"),
        ] {
            let url: RepositoryUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
        let refused = "http://ghp_secret@host/r".parse::<RepositoryUrl>().unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
        assert_eq!(
            without_secrets(
                "fatal: could not read Password for 'https://ghp_secret@host': terminal prompts disabled; http://a:secret@b/"
            ),
            "fatal: could not read Password for 'https://host': terminal prompts disabled; http://b/"
        );
    }

    #[test]
    fn refuses_what_runs_programs_or_is_not_encrypted() {
        for text in [
            "ext::sh -c id",
            "-oProxyCommand=id",
            "http://host/r",
            "git://host/r",
            "ssh://-oProxyCommand=id/r",
            "",
            "fd::3",
        ] {
            assert!(text.parse::<RepositoryUrl>().is_err(), "{text}");
        }
    }
}
