//! The file of static tokens: kube-apiserver's `--token-auth-file` format with the token's digest in the token's place, and until when it
//! counts behind it.
//!
//! ```text
//! # digest,user,uid,"groups",end
//! sha256:9f86d0…,alice,,"dev,ops",2027-01-31T00:00:00Z
//! ```

use std::collections::HashMap;
use std::time::SystemTime;

use jiff::Timestamp;

use super::{KeyDigest, User};

/// Users by the digest of their token.
pub type StaticTokens = HashMap<String, StaticToken>;

/// What a line says about its token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticToken {
    /// Whose it is.
    pub user: User,
    /// Until when it counts; without, for as long as its line stands.
    pub expires: Option<SystemTime>,
}

impl StaticToken {
    /// Whether it counts no longer.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct InvalidTokenLine {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong. Never quotes the line: somebody may have put the token itself there.
    pub message: &'static str,
}

/// The digest under which a token stands in the file; a token has enough randomness that no salt is needed.
pub fn token_digest(token: &str) -> String {
    KeyDigest::of_public_key(token.as_bytes()).to_string()
}

/// The line for a user's token, which counts until `expires` or for ever.
pub fn token_line(token: &str, user: &str, groups: &[String], expires: Option<Timestamp>) -> String {
    let (user, groups) = (quoted(user), quoted(&groups.join(",")));
    let end = expires.map(|end| format!(",{end}")).unwrap_or_default();
    format!("{},{user},,{groups}{end}", token_digest(token))
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '#']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// Reads the whole file; one bad line makes it unreadable, so that nobody is left out in silence.
pub fn parse_tokens(text: &str) -> Result<StaticTokens, InvalidTokenLine> {
    let mut tokens = StaticTokens::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |message| InvalidTokenLine {
            line: index + 1,
            message,
        };
        let (digest, user) = parse_line(line).map_err(wrong)?;
        if tokens.insert(digest, user).is_some() {
            return Err(wrong("the same token stands there twice"));
        }
    }
    Ok(tokens)
}

fn parse_line(line: &str) -> Result<(String, StaticToken), &'static str> {
    let fields = split(line).ok_or("a quote is not closed")?;
    let [digest, name, rest @ ..] = fields.as_slice() else {
        return Err("a line has at least a digest and a user, separated by a comma");
    };
    let digest: KeyDigest = digest.parse().map_err(
        |_| "the first field is no digest (sha256: and 64 hexadecimal digits); `branchline token user` makes the line",
    )?;
    if name.is_empty() || name.starts_with("system:") {
        return Err("the user is empty, or begins with system:, which is Kubernetes' own");
    }
    if rest.len() > 3 {
        return Err("there are more than five fields: put the groups in one quoted field");
    }
    let field = |at: usize| rest.get(at).map(|field| field.trim()).unwrap_or_default();
    let groups = field(1).split(',').map(str::trim).filter(|group| !group.is_empty());
    let user = User {
        name: name.clone(),
        groups: groups.map(str::to_owned).collect(),
        ..User::default()
    };
    let expires = parse_end(field(2))?;
    Ok((digest.to_string(), StaticToken { user, expires }))
}

fn parse_end(text: &str) -> Result<Option<SystemTime>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    let end: Timestamp = text
        .parse()
        .map_err(|_| "the fifth field is no time of the form 2027-01-31T00:00:00Z")?;
    Ok(Some(end.into()))
}

/// Fields of a CSV line; a doubled quote within quotes stands for one.
fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if inside && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => inside = !inside,
            ',' if !inside => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!inside).then_some(fields)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let groups = ["dev".to_owned(), "ops".to_owned()];
        let end: Timestamp = "2027-01-31T00:00:00Z".parse().unwrap();
        let text = format!(
            "# people\n\n{}\n{}\n",
            token_line("a", "alice", &groups, Some(end)),
            token_line("b", "b, \"ob\"", &[], None)
        );
        let tokens = parse_tokens(&text).unwrap();
        let alice = &tokens[&token_digest("a")];
        assert_eq!((&alice.user.groups[..], alice.expires), (&groups[..], Some(end.into())));
        assert!(alice.has_expired(end.into()) && !alice.has_expired(SystemTime::UNIX_EPOCH));
        let bob = &tokens[&token_digest("b")];
        assert_eq!((bob.user.name.as_str(), bob.expires), ("b, \"ob\"", None));
        assert!(text.contains(",alice,,\"dev,ops\",2027-01-31T00:00:00Z"), "{text}");
    }

    #[test]
    fn a_bad_line_is_named_and_never_quoted() {
        let good = token_line("a", "alice", &[], None);
        let digest = token_digest("x");
        for (line, message) in [
            ("secret-token,alice", "no digest"),
            ("alone", "at least"),
            (&*format!("{digest},"), "user is empty"),
            (&*format!("{digest},u,,a,b"), "no time"),
            (&*format!("{digest},u,,a,,c"), "more than five"),
            (&*format!("{digest},system:admin"), "system:"),
            (&*format!("{digest},\"u"), "not closed"),
            (&good, "twice"),
        ] {
            let error = parse_tokens(&format!("{good}\n{line}")).unwrap_err();
            assert!(error.line == 2 && error.message.contains(message), "{line}: {error}");
            assert!(!error.to_string().contains("secret-token"));
        }
    }
}
