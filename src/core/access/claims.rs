//! What an ID token of OpenID Connect says about its holder, once its signature was found good. The rules are kube-apiserver's for the flags
//! of the same names (`--oidc-…`). Pure: time and keys are others'.

use serde_json::{Map, Value};

use super::User;

/// Clocks may differ by so many seconds.
const LEEWAY: u64 = 30;
/// The longest name that is taken from a token, in bytes.
const MAX_NAME: usize = 1_024;
/// The most groups that are taken from a token.
const MAX_GROUPS: usize = 500;

/// How a token's claims become a user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimRules {
    /// `iss` has to be exactly this.
    pub issuer: String,
    /// `aud` has to contain this.
    pub client_id: String,
    /// The claim that is the user's name.
    pub username_claim: String,
    /// What stands before the user's name.
    pub username_prefix: String,
    /// The claim that lists groups; none are taken without.
    pub groups_claim: Option<String>,
    /// What stands before each group.
    pub groups_prefix: String,
    /// Claims that have to be there with these values.
    pub required: Vec<(String, String)>,
}

impl ClaimRules {
    /// kube-apiserver's rule for a prefix that is not stated: none for e-mail addresses, else the issuer and `#`; `-` is none.
    pub fn prefix_of(stated: Option<&str>, issuer: &str, username_claim: &str) -> String {
        match stated {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if username_claim == "email" => String::new(),
            None => format!("{issuer}#"),
        }
    }

    /// The user and until when, in seconds since 1970; else why the token is not good.
    pub fn user(&self, claims: &Map<String, Value>, now: u64) -> Result<(User, u64), String> {
        self.check_origin(claims)?;
        let end = check_time(claims, now)?;
        for (claim, wanted) in &self.required {
            if claims.get(claim).and_then(Value::as_str) != Some(wanted) {
                return Err(format!("lacks the claim {claim:?} with the value that is required"));
            }
        }
        let user = User {
            name: self.name(claims)?,
            groups: self.groups(claims)?,
            ..User::default()
        };
        Ok((user, end))
    }

    fn check_origin(&self, claims: &Map<String, Value>) -> Result<(), String> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(format!("is not from the issuer {}", self.issuer));
        }
        let meant = match claims.get("aud") {
            Some(Value::String(audience)) => *audience == self.client_id,
            Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience == self.client_id.as_str()),
            _ => false,
        };
        if meant {
            return Ok(());
        }
        Err(format!(
            "is meant for somebody else: its audience is not {:?}",
            self.client_id
        ))
    }

    fn name(&self, claims: &Map<String, Value>) -> Result<String, String> {
        let claim = &self.username_claim;
        let name = claims.get(claim).and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("has no claim {claim:?} for the user's name"))?;
        if claim == "email"
            && claims
                .get("email_verified")
                .is_some_and(|verified| verified != &Value::Bool(true))
        {
            return Err("has an e-mail address that the issuer has not verified".to_owned());
        }
        let name = format!("{}{name}", self.username_prefix);
        if name.starts_with("system:") || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err("has a user's name that is reserved (system:), too long, or not printable".to_owned());
        }
        Ok(name)
    }

    /// Groups of Kubernetes' own are nobody's to give but Kubernetes'.
    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, String> {
        let Some(stated) = self.groups_claim.as_ref().and_then(|claim| claims.get(claim)) else {
            return Ok(Vec::new());
        };
        let texts: Vec<&str> = match stated {
            Value::String(group) => vec![group],
            Value::Array(groups) => groups.iter().filter_map(Value::as_str).collect(),
            _ => return Err("has groups that are neither a text nor a list of texts".to_owned()),
        };
        if texts.len() > MAX_GROUPS {
            return Err(format!("lists more than {MAX_GROUPS} groups"));
        }
        let named = texts.iter().map(|group| format!("{}{group}", self.groups_prefix));
        Ok(named
            .filter(|group| !group.starts_with("system:") && group.len() <= MAX_NAME && !group.contains(char::is_control))
            .collect())
    }
}

/// A time that is there and no number makes the token no good, rather than a token without that time.
fn check_time(claims: &Map<String, Value>, now: u64) -> Result<u64, String> {
    let seconds = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => {
            let whole = value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds));
            // Some issuers write fractions.
            whole
                .map(|seconds| Some(seconds as u64))
                .ok_or_else(|| format!("has a claim {claim:?} that is no time"))
        }
    };
    let end = seconds("exp")?.ok_or("never ends, which an ID token does")?;
    if end + LEEWAY <= now {
        return Err("has expired".to_owned());
    }
    if seconds("nbf")?.is_some_and(|begin| begin > now + LEEWAY) {
        return Err("is not valid yet: compare the clocks".to_owned());
    }
    Ok(end + LEEWAY)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn rules() -> ClaimRules {
        ClaimRules {
            issuer: "https://issuer".to_owned(),
            client_id: "hub".to_owned(),
            username_claim: "email".to_owned(),
            username_prefix: String::new(),
            groups_claim: Some("groups".to_owned()),
            groups_prefix: "oidc:".to_owned(),
            required: vec![("hd".to_owned(), "example.org".to_owned())],
        }
    }

    fn good() -> Value {
        json!({"iss": "https://issuer", "aud": ["x", "hub"], "exp": 1_000, "nbf": 500, "email": "a@example.org", "groups": ["dev"], "hd": "example.org"})
    }

    #[test]
    fn claims_become_a_user() {
        let (user, end) = rules().user(good().as_object().unwrap(), 700).unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice(), end),
            ("a@example.org", &["oidc:dev".to_owned()][..], 1_030)
        );
        let prefix = |stated, claim| ClaimRules::prefix_of(stated, "https://issuer", claim);
        assert_eq!(prefix(None, "sub"), "https://issuer#");
        assert_eq!(
            [prefix(None, "email"), prefix(Some("-"), "sub"), prefix(Some("x:"), "email")],
            ["", "", "x:"]
        );
    }

    #[test]
    fn a_claim_that_is_wrong_makes_the_token_no_good() {
        for (claim, value, message) in [
            ("iss", json!("https://issuer/"), "not from the issuer"),
            ("aud", json!("other"), "meant for somebody else"),
            ("aud", Value::Null, "meant for somebody else"),
            ("exp", json!(600), "has expired"),
            ("exp", json!("1000"), "no time"),
            ("nbf", json!(800), "not valid yet"),
            ("nbf", json!("800"), "no time"),
            ("email", json!(""), "no claim \"email\""),
            ("email", json!("system:admin"), "reserved"),
            ("email_verified", json!(false), "not verified"),
            ("email_verified", json!("true"), "not verified"),
            ("groups", json!({"a": 1}), "neither a text"),
            ("hd", json!("example.com"), "lacks the claim \"hd\""),
        ] {
            let mut claims = good();
            claims[claim] = value;
            let error = rules().user(claims.as_object().unwrap(), 700).unwrap_err();
            assert!(error.contains(message), "{claim}: {error}");
        }
        let mut claims = good();
        claims.as_object_mut().unwrap().remove("exp");
        assert!(
            rules()
                .user(claims.as_object().unwrap(), 700)
                .unwrap_err()
                .contains("never ends")
        );
        let mut claims = good();
        claims["groups"] = json!(["system:masters", "dev"]);
        let plain = ClaimRules {
            groups_prefix: String::new(),
            ..rules()
        };
        assert_eq!(plain.user(claims.as_object().unwrap(), 700).unwrap().0.groups, ["dev"]);
    }
}
