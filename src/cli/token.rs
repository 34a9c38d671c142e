//! `branchline token`: bootstrap tokens of agents, and static tokens of users. The hub keeps digests only, so a token is shown once.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::HubAccess;
use super::output::{Output, table};
use super::{CliError, runtime};
use crate::core::access::token_file::{parse_tokens, token_line};

/// Arguments of `branchline token`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes a token and prints it once
    Create {
        /// How long it is valid: 30m, 24h, 7d; 0 means for ever
        #[arg(long, default_value = "24h", value_parser = parse_ttl)]
        ttl: u64,
        /// Print the exact `branchline agent` line
        #[arg(long)]
        print_join: bool,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Lists tokens without their secret parts
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Makes a user's static token, without any hub: the token goes to stdout, its line for `hub --token-auth-file` into FILE
    User {
        /// Whose it is
        #[arg(long, value_name = "U")]
        user: String,
        /// A group of the user; may be repeated
        #[arg(long, value_name = "G")]
        group: Vec<String>,
        /// How long it counts: 12h, 90d; 0 means for as long as its line stands
        #[arg(long, default_value = "90d", value_parser = parse_ttl)]
        ttl: u64,
        /// The hub's token file, made if need be; without it the line goes to stderr
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Makes a token invalid; agents that registered with it stay
    Revoke {
        /// The part before the dot
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// Runs the command.
pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, CliError> {
    runtime()?.block_on(async {
        match args.command {
            Command::Create {
                ttl,
                print_join,
                description,
                hub,
            } => create(ttl, print_join, &description, &hub, out).await?,
            Command::User { user, group, ttl, file } => make_user_token(&user, &group, ttl, file.as_deref(), out)?,
            Command::List { hub } => list(&hub, out).await?,
            Command::Revoke { id, hub } => {
                let id = id.split('.').next().unwrap_or_default();
                hub.connect()
                    .await?
                    .send(Method::DELETE, &format!("tokens/{id}"), None)
                    .await?;
                out.line(&format!("token {id} revoked"));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn create(ttl: u64, print_join: bool, description: &str, hub: &HubAccess, out: &mut Output) -> Result<(), CliError> {
    let client = hub.connect().await?;
    let asked = json!({"ttlSeconds": (ttl > 0).then_some(ttl), "description": description});
    let answer = client.send(Method::POST, "tokens", Some(asked)).await?;
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    if print_join {
        out.line(&format!(
            "branchline agent --hub {} --token {} --ca-hash {} --name NAME",
            client.server(),
            text("token"),
            text("caHash")
        ));
        out.note("next: put in the cluster's name and run it there; add --kubeconfig FILE outside the cluster");
    } else {
        out.line(text("token"));
        out.note("next: branchline token create --print-join prints the whole agent line");
    }
    Ok(())
}

fn make_user_token(user: &str, groups: &[String], ttl: u64, file: Option<&Path>, out: &mut Output) -> Result<(), CliError> {
    if let Some(group) = groups.iter().find(|group| group.contains(',') || group.trim().is_empty()) {
        return Err(CliError::usage(
            format!("--group {group:?} is no group for this file"),
            "groups are separated by commas there; repeat --group",
        ));
    }
    // 256 bits.
    let secret: [u8; 32] = rand::random();
    let token = URL_SAFE_NO_PAD.encode(secret);
    let line = token_line(&token, user, groups, end_of(ttl)?);
    parse_tokens(&line).map_err(|error| CliError::usage(format!("{user:?} cannot have a token"), "").because(error))?;
    match file {
        None => out.note(&format!("line for the file of hub --token-auth-file: {line}")),
        Some(path) => append(path, &line)
            .map_err(|error| CliError::failed(format!("{} cannot be written", path.display()), "").because(error))?,
    }
    out.line(&token);
    Ok(())
}

/// In whole seconds, as people write times.
fn end_of(ttl: u64) -> Result<Option<Timestamp>, CliError> {
    let too_long = |error| CliError::usage("--ttl is longer than time lasts", "0 means for ever").because(error);
    let end = || Timestamp::from_second(Timestamp::now().as_second().saturating_add_unsigned(ttl));
    (ttl > 0).then(end).transpose().map_err(too_long)
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    let mut last = *b"\n";
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    // People write files whose last line has no end; a line must not go on where that one stops.
    let begin = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{begin}{line}\n").as_bytes())?;
    file.sync_all()
}

async fn list(hub: &HubAccess, out: &mut Output) -> Result<(), CliError> {
    let answer = hub.connect().await?.send(Method::GET, "tokens", None).await?;
    let rows = answer["items"].as_array().into_iter().flatten().map(|token| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = if token["expired"] == true { "expired" } else { "valid" };
        let expires = token["expires"].as_str().unwrap_or("never").to_owned();
        vec![text(&token["id"]), state.to_owned(), expires, text(&token["description"])]
    });
    out.text(&table(&["ID", "STATE", "EXPIRES", "DESCRIPTION"], rows.collect()));
    Ok(())
}

/// `90s`, `30m`, `24h`, `7d`, `0`.
pub(super) fn parse_ttl(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number
        .parse()
        .map_err(|_| "write a number and s, m, h or d, for example 24h".to_owned())?;
    let seconds = match unit {
        "" if number == 0 => 1,
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write a number and s, m, h or d, for example 24h".to_owned()),
    };
    number
        .checked_mul(seconds)
        .ok_or_else(|| "that is longer than time lasts".to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_line_is_a_line_of_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        append(file.path(), "one").unwrap();
        std::fs::write(file.path(), "one\ntwo").unwrap();
        append(file.path(), "three").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "one\ntwo\nthree\n");
    }

    #[test]
    fn reads_durations() {
        assert_eq!(
            [parse_ttl("90s"), parse_ttl("24h"), parse_ttl("7d"), parse_ttl("0")],
            [Ok(90), Ok(86_400), Ok(604_800), Ok(0)]
        );
        assert!(parse_ttl("5").is_err() && parse_ttl("h").is_err() && parse_ttl("1w").is_err());
    }
}
