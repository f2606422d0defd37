//! Tokens of Amazon RDS: makes one for each login. Only the credentials that sign it may have to be asked for: they are those of
//! the environment, or what the container or the machine that this runs on is given.
//!
//! Asked are addresses of the link itself or of this machine, without encryption, as AWS has it. Roles that are assumed
//! with a web identity need AWS' token service, and its command as `exec:` is for that.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgweir_auth::{AwsCredentials, Secret, rds_region, rds_token};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::process::fetch::{self, Request, Url};
use crate::shared::{PoolHome, lock};

/// How long what was given is used without asking again. The next ones are there five minutes before the last run out.
const KEPT: Duration = Duration::from_secs(60);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a container asks, with a path.
const CONTAINER: &str = "http://169.254.170.2";

/// Where a machine asks, unless the environment names another place.
const MACHINE: &str = "http://169.254.169.254";

/// The credentials that were asked for last.
#[derive(Debug, Default)]
pub(crate) struct Rds {
    given: Mutex<Option<(Instant, AwsCredentials)>>,
}

/// As the container's and the machine's service give them.
#[derive(Deserialize)]
struct Given {
    #[serde(rename = "AccessKeyId")]
    id: String,
    #[serde(rename = "SecretAccessKey")]
    secret: String,
    #[serde(rename = "Token")]
    token: Option<String>,
}

impl From<Given> for AwsCredentials {
    fn from(given: Given) -> Self {
        Self {
            id: given.id,
            secret: given.secret.into(),
            session_token: given.token.map(Zeroizing::new),
        }
    }
}

impl Rds {
    /// A token for a pool's user at a host.
    ///
    /// # Errors
    /// The host, the region or the credentials are not known; the text is for the log and has no secret in it.
    pub(crate) async fn token(
        &self,
        home: &PoolHome,
        host: &str,
        region: Option<&str>,
    ) -> Result<Secret, String> {
        if host.is_empty() {
            return Err("the database has no host".to_owned());
        }
        let of_environment = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let region = region.or_else(|| rds_region(host));
        let region = region.or(of_environment.as_deref()).ok_or_else(|| {
            format!(
                "{host} does not name its region: say it as rds:region=REGION, or in AWS_REGION"
            )
        })?;
        let credentials = match of_the_environment() {
            Some(credentials) => credentials,
            None => self.given().await?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let at = (host, home.rules().database.port());
        let token = rds_token(&credentials, region, at, &home.name.user, now);
        Secret::parse(token.as_bytes()).map_err(|bad| bad.to_string())
    }

    async fn given(&self) -> Result<AwsCredentials, String> {
        let kept = lock(&self.given).clone();
        if let Some((at, given)) = kept
            && at.elapsed() < KEPT
        {
            return Ok(given);
        }
        let asked = match container()? {
            Some((url, headers)) => ask("GET", &url, &headers).await,
            None => of_the_machine().await,
        };
        let answer = asked.map_err(|reason| format!("no credentials of AWS: {reason}"))?;
        let given: Given = serde_json::from_slice(&answer)
            .map_err(|_| "no credentials of AWS: the answer is of another form".to_owned())?;
        let given = AwsCredentials::from(given);
        *lock(&self.given) = Some((Instant::now(), given.clone()));
        Ok(given)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn of_the_environment() -> Option<AwsCredentials> {
    Some(AwsCredentials {
        id: variable("AWS_ACCESS_KEY_ID")?,
        secret: variable("AWS_SECRET_ACCESS_KEY")?.into(),
        session_token: variable("AWS_SESSION_TOKEN").map(Zeroizing::new),
    })
}

type Headers = Vec<(&'static str, Zeroizing<String>)>;

/// Where a container is given its credentials (ECS; EKS Pod Identity), and with what it asks.
fn container() -> Result<Option<(Url, Headers)>, String> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let url = match relative {
        Some(path) => Some(format!("{CONTAINER}{path}")),
        None => variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    };
    let Some(url) = url else { return Ok(None) };
    let token = match variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
        Some(path) => {
            let read = fs::read_to_string(&path);
            Some(read.map_err(|error| format!("{path}: {error}"))?)
        }
        None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    };
    let token = token.map(|token| Zeroizing::new(token.trim().to_owned()));
    let headers = token.map(|token| ("authorization", token));
    Ok(Some((Url::parse(&url)?, headers.into_iter().collect())))
}

/// The second version of the machine's service: a token first.
async fn of_the_machine() -> Result<Vec<u8>, String> {
    let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let base = base.as_deref().unwrap_or(MACHINE).trim_end_matches('/');
    let ttl = (
        "x-aws-ec2-metadata-token-ttl-seconds",
        "60".to_owned().into(),
    );
    let token = text(
        ask(
            "PUT",
            &Url::parse(&format!("{base}/latest/api/token"))?,
            &[ttl],
        )
        .await?,
    )?;
    let header = [("x-aws-ec2-metadata-token", Zeroizing::new(token))];
    let roles = format!("{base}/latest/meta-data/iam/security-credentials/");
    let role = text(ask("GET", &Url::parse(&roles)?, &header).await?)?;
    let role = role.lines().next().unwrap_or_default().trim();
    ask("GET", &Url::parse(&format!("{roles}{role}"))?, &header).await
}

fn text(answer: Vec<u8>) -> Result<String, String> {
    String::from_utf8(answer).map_err(|_| "the answer is no text".to_owned())
}

async fn ask(
    method: &'static str,
    url: &Url,
    headers: &[(&'static str, Zeroizing<String>)],
) -> Result<Vec<u8>, String> {
    let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = Request {
        method,
        url,
        headers: headers.collect(),
        body: Vec::new(),
    };
    fetch::fetch(request, PATIENCE).await
}
