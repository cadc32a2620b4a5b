//! Before the broker starts: whether the servers are ones it can answer.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::Client;
use serde::Deserialize;
use tokio_stream::StreamExt as _;

use super::brokers::another_leads;
use super::connect::{ConnectError, connect};
use super::folder::{FolderError, Material};
use super::key::Owner;
use super::token;
use crate::config::Nats;

/// For a server to show its accounts.
const ANSWER: Duration = Duration::from_secs(5);
/// For the others, after it.
const OTHERS: Duration = Duration::from_secs(2);

/// Why the broker cannot answer these servers.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What hosts were answered.
    #[error(transparent)]
    Answers(#[from] super::AnswersError),
    /// The servers.
    #[error("the lattice's servers cannot be used: {0}")]
    Server(String),
    /// There is a broker already.
    #[error(
        "a broker with a store of its own answers these servers already: end it first, or let this one follow it (`portcullis-broker follow`)"
    )]
    Led,
    /// The set-up is older.
    #[error("`{}` is of a set-up in which brokers cannot speak to each other: write it anew with `portcullis-broker nats init`", .0.display())]
    Earlier(PathBuf),
    /// The callout.
    #[error(
        "the lattice's servers do not ask this broker: {0}; `portcullis-broker nats init` writes a set-up that does"
    )]
    Callout(String),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Accounts>,
}

#[derive(Deserialize)]
struct Accounts {
    #[serde(default)]
    account_detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    #[serde(default)]
    jwt: String,
}

#[derive(Deserialize)]
struct AccountWire {
    #[serde(default)]
    authorization: CalloutWire,
}

#[derive(Default, Deserialize)]
struct CalloutWire {
    #[serde(default)]
    auth_users: Vec<String>,
    #[serde(default)]
    allowed_accounts: Vec<String>,
    #[serde(default)]
    xkey: String,
}

/// Looks at one server of `settings`. One that cannot be reached is no error: the broker has more to do than to answer it, and tries again.
///
/// # Errors
/// When the folder cannot be used, the server is too old, refuses the broker's users, would not ask the broker about logins, or another
/// broker with a store answers already.
pub async fn check(settings: &Nats) -> Result<(), CheckError> {
    look(settings, Role::Leads).await
}

/// The same for a broker that follows.
///
/// # Errors
/// As [`check`].
pub async fn check_followed(settings: &Nats) -> Result<(), CheckError> {
    look(settings, Role::Follows).await
}

/// What the broker is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leads,
    Follows,
}

async fn look(settings: &Nats, role: Role) -> Result<(), CheckError> {
    let material = Material::read(&settings.folder)?;
    if !material.lets_brokers_speak() {
        return Err(CheckError::Earlier(settings.folder.clone()));
    }
    // A server knows an account once somebody logged in to it.
    let (callout, client) = match tokio::try_join!(
        Box::pin(connect(settings, "check", &material.users.callout)),
        Box::pin(connect(settings, "check", &material.users.system))
    ) {
        Ok(clients) => clients,
        Err(error @ ConnectError::Unreachable(_)) => {
            tracing::warn!(%error, "the lattice's servers cannot be checked now");
            return Ok(());
        }
        Err(error) => return Err(CheckError::Server(error.to_string())),
    };
    if role == Role::Leads && another_leads(&callout).await {
        return Err(CheckError::Led);
    }
    let jwt = account(&client, &material).await.map_err(CheckError::Callout)?;
    let same = client.server_info().server_id == callout.server_info().server_id;
    if jwt.is_empty() && !same {
        tracing::warn!("the lattice's servers do not know of each other yet: they cannot be checked now");
    } else {
        judge(&material, &jwt).map_err(CheckError::Callout)?;
    }
    // Best effort: the connections were for one question.
    let _ = client.drain().await;
    let _ = callout.drain().await;
    Ok(())
}

/// The callout's account as one of the servers knows it, empty where none does.
async fn account(client: &Client, material: &Material) -> Result<String, String> {
    let silent = |_| "the servers do not show their accounts".to_owned();
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    let ask = serde_json::json!({"account": material.callout.as_str()}).to_string();
    let asked = client.publish_with_reply("$SYS.REQ.SERVER.PING.ACCOUNTZ", inbox, ask.into());
    asked.await.map_err(|error| error.to_string())?;
    let first = tokio::time::timeout(ANSWER, answers.next()).await.map_err(silent)?;
    let mut answer = first;
    // Nobody says how many servers there are.
    let others = tokio::time::sleep(OTHERS);
    tokio::pin!(others);
    while let Some(message) = answer {
        let read = serde_json::from_slice::<Answer>(&message.payload).ok();
        let jwt = read.and_then(|answer| Some(answer.data?.account_detail?.jwt)).unwrap_or_default();
        if !jwt.is_empty() {
            return Ok(jwt);
        }
        answer = tokio::select! {
            next = answers.next() => next,
            () = &mut others => None,
        };
    }
    Ok(String::new())
}

fn judge(material: &Material, jwt: &str) -> Result<(), String> {
    let unknown = |_| format!("account `{}` is not one of theirs", material.callout);
    let (_, claims) = token::decode::<AccountWire>(jwt, Owner::Operator).map_err(unknown)?;
    let CalloutWire { auth_users, allowed_accounts, xkey } = claims.nats.authorization;
    if auth_users.is_empty() {
        return Err(format!("account `{}` has no auth callout", material.callout));
    }
    if xkey != material.seal.public() {
        return Err("their requests are sealed for another key".to_owned());
    }
    if !allowed_accounts.iter().any(|allowed| allowed == "*" || allowed == material.lattice.as_str()) {
        return Err(format!("account `{}` may not be assigned by the callout", material.lattice));
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use serde_json::{Value, json};

    use super::*;
    use crate::nats::key::SigningKey;
    use crate::nats::setup::{Certificate, HostsTls, Listener, SetUp};
    use crate::nats::token::Claims;

    #[test]
    fn an_account_that_would_not_ask_us_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener { clients: ([127, 0, 0, 1], 1).into(), route: ([127, 0, 0, 1], 2).into() };
        let set_up = SetUp {
            folder: folder.path().join("nats"),
            name: "acme".to_owned(),
            hosts: listener,
            nodes: listener,
            certificate: Certificate { chain: "c".into(), key: "k".into(), ca: "ca".into() },
            nodes_ca: "b".into(),
            hosts_tls: HostsTls::Required,
        };
        let material = Material::read(&set_up.write(crate::clock::now()).unwrap().broker).unwrap();
        assert!(material.lets_brokers_speak());
        let operator = SigningKey::generate(Owner::Operator);
        let judged = |authorization: Value| {
            let claims = Claims::about(material.callout.as_str(), 1, json!({"authorization": authorization}));
            judge(&material, &token::encode(claims, &operator).unwrap())
        };
        let (xkey, lattice) = (material.seal.public(), material.lattice.as_str());
        judged(json!({"auth_users": ["U"], "allowed_accounts": [lattice], "xkey": xkey})).unwrap();
        for (authorization, reason) in [
            (json!({}), "has no auth callout"),
            (json!({"auth_users": ["U"], "allowed_accounts": [lattice]}), "sealed for another key"),
            (json!({"auth_users": ["U"], "allowed_accounts": ["A"], "xkey": xkey}), "may not be assigned"),
        ] {
            let error = judged(authorization).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        // What an operator did not sign is not believed, and neither is nothing.
        assert!(judge(&material, "").unwrap_err().contains("is not one of theirs"));
    }
}
