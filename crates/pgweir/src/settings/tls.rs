//! TLS as the configuration wants it, towards clients and towards servers. Immutable: RELOAD and a renewed
//! certificate make a new one.

use pgweir_config::{Settings, SslMode, client_tls_faults};
use pgweir_net::Stream;
use pgweir_net::tls::{
    Acceptor, ClientCertificate, ClientSide, Connector, HandshakeError, Parameters, Pem,
    ServerSide, TlsError,
};

use crate::settings::file_mark::FileMark;

/// Both directions.
#[derive(Debug, PartialEq)]
pub(crate) struct Tls {
    /// For clients; `None` with `client_tls_sslmode = disable`.
    pub(crate) acceptor: Option<Acceptor>,
    /// Whether a client on TCP must use it.
    pub(crate) clients_must: bool,
    connector: Connector,
    files: Vec<CertificateFile>,
    /// Which versions of the files were read.
    pub(crate) seen: Vec<Option<FileMark>>,
}

/// A file with certificates, and when the first of them expires.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CertificateFile {
    /// Towards whom it is used: `client` or `server`.
    pub(crate) side: &'static str,
    /// What it is for: `own` or `authority`.
    pub(crate) certificate: &'static str,
    pub(crate) path: String,
    /// In seconds since 1970.
    pub(crate) expiry: i64,
}

impl Tls {
    /// Reads the certificates and keys that the configuration names.
    ///
    /// # Errors
    /// Settings that contradict each other, or a file that cannot be read or used; the text names
    /// it.
    pub(crate) fn load(settings: &Settings) -> Result<Self, String> {
        if let Some(fault) = client_tls_faults(settings).next() {
            return Err(fault.text.to_owned());
        }
        Self::build(settings).map_err(|error| error.to_string())
    }

    fn build(settings: &Settings) -> Result<Self, TlsError> {
        // They may change while they are read: then they are read again.
        let seen = marks(settings);
        let mode = settings.client_tls_sslmode;
        let acceptor = match mode {
            SslMode::Disable => None,
            SslMode::Allow
            | SslMode::Prefer
            | SslMode::Require
            | SslMode::VerifyCa
            | SslMode::VerifyFull => Some(acceptor(settings)?),
        };
        let connector = connector(settings)?;
        let warnings = acceptor
            .iter()
            .flat_map(Acceptor::warnings)
            .chain(connector.warnings());
        for warning in warnings {
            tracing::warn!("TLS: {warning}");
        }
        let clients_must = matches!(
            mode,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull
        );
        Ok(Self {
            acceptor,
            clients_must,
            connector,
            files: files(settings),
            seen,
        })
    }

    /// The files with certificates that are in force.
    pub(crate) fn files(&self) -> &[CertificateFile] {
        &self.files
    }

    /// Whether servers on TCP are asked for TLS.
    pub(crate) fn requests_server_tls(&self) -> bool {
        self.connector.sslmode().requests_tls()
    }

    /// Whether a server without TLS is refused.
    pub(crate) fn requires_server_tls(&self) -> bool {
        self.connector.sslmode().requires_tls()
    }

    /// Whether a server on TCP has to show that it is the host that was called.
    pub(crate) fn verifies_servers(&self) -> bool {
        self.connector.sslmode().verifies_host()
    }

    /// Whether two configurations treat servers alike.
    pub(crate) fn same_towards_servers(&self, other: &Self) -> bool {
        self.connector == other.connector
    }

    /// The handshake with a server that has agreed to TLS.
    pub(crate) async fn encrypt(
        &self,
        stream: Stream,
        host: Option<&str>,
    ) -> Result<Stream, HandshakeError> {
        self.connector
            .connect(stream, host.unwrap_or("localhost"))
            .await
    }
}

/// The marks of all files that are used, as they are now.
pub(crate) fn marks(settings: &Settings) -> Vec<Option<FileMark>> {
    let clients = settings.client_tls_sslmode != SslMode::Disable;
    let servers = settings.server_tls_sslmode != SslMode::Disable;
    [
        (clients, &settings.client_tls_cert_file),
        (clients, &settings.client_tls_key_file),
        (clients, &settings.client_tls_ca_file),
        (servers, &settings.server_tls_cert_file),
        (servers, &settings.server_tls_key_file),
        (
            verifies(settings.server_tls_sslmode),
            &settings.server_tls_ca_file,
        ),
    ]
    .into_iter()
    .filter(|(is_used, path)| *is_used && !path.is_empty())
    .map(|(_, path)| FileMark::of(path))
    .collect()
}

/// What was read a moment ago by those who use it.
fn files(settings: &Settings) -> Vec<CertificateFile> {
    let clients = settings.client_tls_sslmode != SslMode::Disable;
    let servers = settings.server_tls_sslmode != SslMode::Disable;
    let verified = verifies(settings.server_tls_sslmode);
    let file = |is_used: bool, side, certificate, path: &str| {
        let is_used = is_used && !path.is_empty();
        let expiry = is_used.then(|| Pem::read(path).ok()?.expiry()).flatten()?;
        Some(CertificateFile {
            side,
            certificate,
            path: path.to_owned(),
            expiry,
        })
    };
    [
        file(clients, "client", "own", &settings.client_tls_cert_file),
        file(clients, "client", "authority", &settings.client_tls_ca_file),
        file(servers, "server", "own", &settings.server_tls_cert_file),
        file(
            verified,
            "server",
            "authority",
            &settings.server_tls_ca_file,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn acceptor(settings: &Settings) -> Result<Acceptor, TlsError> {
    let ca = optional(&settings.client_tls_ca_file)?;
    let client_certificate = match settings.client_tls_sslmode {
        SslMode::VerifyCa | SslMode::VerifyFull => ClientCertificate::Required,
        _ if ca.is_some() => ClientCertificate::Optional,
        _ => ClientCertificate::None,
    };
    Acceptor::new(&ServerSide {
        certificate: Pem::read(&settings.client_tls_cert_file)?,
        key: Pem::read(&settings.client_tls_key_file)?,
        ca,
        client_certificate,
        parameters: Parameters {
            protocols: pgweir_config::Value::show(&settings.client_tls_protocols)
                .unwrap_or_default(),
            ciphers: settings.client_tls_ciphers.clone(),
            tls13_ciphers: settings.client_tls13_ciphers.clone().unwrap_or_default(),
            ecdh_curve: settings.client_tls_ecdhcurve.clone(),
        },
    })
}

/// As with PgBouncer, a file that is not used may be anything.
fn connector(settings: &Settings) -> Result<Connector, TlsError> {
    use pgweir_net::tls::SslMode as Mode;
    let mut side = ClientSide {
        sslmode: match settings.server_tls_sslmode {
            SslMode::Disable => Mode::Disable,
            SslMode::Allow => Mode::Allow,
            SslMode::Prefer => Mode::Prefer,
            SslMode::Require => Mode::Require,
            SslMode::VerifyCa => Mode::VerifyCa,
            SslMode::VerifyFull => Mode::VerifyFull,
        },
        ca: None,
        certificate: None,
        key: None,
        parameters: Parameters::default(),
    };
    if side.sslmode.requests_tls() {
        side.certificate = optional(&settings.server_tls_cert_file)?;
        side.key = optional(&settings.server_tls_key_file)?;
        side.parameters = Parameters {
            protocols: pgweir_config::Value::show(&settings.server_tls_protocols)
                .unwrap_or_default(),
            ciphers: settings.server_tls_ciphers.clone(),
            tls13_ciphers: settings.server_tls13_ciphers.clone().unwrap_or_default(),
            ecdh_curve: "auto".to_owned(),
        };
    }
    if verifies(settings.server_tls_sslmode) {
        side.ca = optional(&settings.server_tls_ca_file)?;
    }
    Connector::new(&side)
}

/// Whether a CA has to vouch for servers.
fn verifies(mode: SslMode) -> bool {
    matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull)
}

fn optional(path: &str) -> Result<Option<Pem>, TlsError> {
    if path.is_empty() {
        Ok(None)
    } else {
        Pem::read(path).map(Some)
    }
}
