//! TLS: whom we trust, what we show, and what to do when a handshake fails.

use lapin::{
    Error, ErrorKind,
    tcp::{RustlsConnector, RustlsConnectorConfig},
};
use rustls::{
    AlertDescription, CertificateError, InvalidMessage,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{fmt, io};

/// The options of a URL that name files, as RabbitMQ's own clients call them.
pub(super) const FILES: [&str; 3] = ["cacertfile", "certfile", "keyfile"];

/// PEM files that the URL names. They are read for each connection: certificates that live for hours are renewed in
/// place.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// Whose certificates are trusted, instead of the system's.
    authorities: Option<String>,
    /// Our certificate, with what is between it and its authority, and our key.
    identity: Option<(String, String)>,
}

impl Tls {
    /// What the URL's options say, or what is wrong with them.
    pub(super) fn of(url: &str) -> Result<Self, String> {
        let options = url.split_once('?').unwrap_or_default().1;
        let named = |file: &str| {
            let mut named = options.split('&').filter_map(|option| option.split_once('='));
            named.find(|(name, _)| *name == file).map(|(_, path)| decoded(path)).transpose()
        };
        let [authorities, certificate, key] = FILES;
        let identity = match (named(certificate)?, named(key)?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(format!("`{certificate}` without `{key}`: one is no use without the other")),
            (None, Some(_)) => return Err(format!("`{key}` without `{certificate}`: one is no use without the other")),
        };
        let tls = Self { authorities: named(authorities)?, identity };
        if tls != Self::default() {
            if !url.starts_with("amqps://") {
                return Err(format!("one of {}, which are for TLS: it begins with amqps://", FILES.join(", ")));
            }
            tls.connector().map_err(|error| format!("a file that cannot be used: {error}"))?;
        }
        Ok(tls)
    }

    /// Reads the files.
    pub(super) fn connector(&self) -> io::Result<RustlsConnector> {
        let config = match &self.authorities {
            Some(path) => RustlsConnectorConfig::default().with_parsable_certificates(certificates(path)?),
            None => RustlsConnectorConfig::new_with_native_certs().map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{error}: install the system's certificates, or name `cacertfile`"),
                )
            })?,
        };
        match &self.identity {
            Some((certificate, key)) => config
                .connector_with_single_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| io::Error::new(error.kind(), format!("{certificate} and {key}: {error}"))),
            None => config.connector_with_no_client_auth(),
        }
    }
}

fn certificates(path: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {text}"));
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| wrong(format!("{error}; PEM was expected")))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate is in it; PEM was expected".into()));
    }
    Ok(certificates)
}

fn private_key(path: &str) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| {
        let text = format!("{path}: no private key was read ({error}); PEM without a password was expected");
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// A value of a URL: `%2F` is a slash.
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || format!("the value `{text}`, which is no encoded text");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2).ok_or_else(wrong)?;
                rest = after;
                let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// A handshake that failed, with what to do about it.
#[derive(Debug)]
struct Advised {
    failure: rustls::Error,
    advice: &'static str,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.failure, self.advice)
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.failure)
    }
}

/// The same error, with what to do if it is about certificates.
pub(super) fn advised(error: Error) -> Error {
    let ErrorKind::IOError(io) = error.kind() else { return error };
    let Some(failure) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else { return error };
    match advice(failure) {
        Some(advice) => io::Error::new(io.kind(), Advised { failure: failure.clone(), advice }).into(),
        None => error,
    }
}

/// Whether certificates are to blame: waiting does not help.
pub(super) fn is_certificates(error: &Error) -> bool {
    let ErrorKind::IOError(io) = error.kind() else { return false };
    io.get_ref().is_some_and(|inner| inner.is::<Advised>())
}

fn advice(failure: &rustls::Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage as Unreadable};
    Some(match failure {
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the broker's certificate is by no authority that this machine trusts: name the authority's own \
             certificate in the URL, `?cacertfile=/path/to/ca.pem`"
        }
        InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "name the broker in the URL as its certificate does, or have a certificate made for this name \
             (subjectAltName)"
        }
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "renew the broker's certificate, or set this machine's clock"
        }
        InvalidCertificate(_) => "give the broker another certificate",
        AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            "the broker asks for a certificate of ours: `?certfile=/path/to/cert.pem&keyfile=/path/to/key.pem`"
        }
        AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied,
        ) => "the broker does not take our certificate: `certfile` must be valid and by an authority that it trusts",
        Unreadable(InvalidMessage::InvalidContentType) => {
            "nobody speaks TLS at this port: RabbitMQ does at 5671, or write amqp://"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_options_and_what_is_wrong_is_said() {
        let wrong = |url: &str| Tls::of(url).expect_err(url);
        assert_eq!(Tls::of("amqps://u:p@h/v?heartbeat=5"), Ok(Tls::default()));
        for (options, expected) in [
            ("certfile=/c.pem", "`certfile` without `keyfile`"),
            ("keyfile=/k.pem&heartbeat=5", "`keyfile` without `certfile`"),
            ("cacertfile=/no/such%2Ffile.pem", "/no/such/file.pem: No such file"),
            ("cacertfile=%2", "no encoded text"),
            ("cacertfile=/dev/null", "/dev/null: no certificate is in it"),
        ] {
            let text = wrong(&format!("amqps://u:p@h/v?{options}"));
            assert!(text.contains(expected), "{options}: {text}");
        }
        let text = wrong("amqp://u:p@h/v?cacertfile=/ca.pem");
        assert!(text.contains("begins with amqps://"), "{text}");
    }

    #[test]
    fn what_is_not_about_certificates_is_left_alone() {
        let cut = advised(io::Error::from(io::ErrorKind::ConnectionReset).into());
        assert!(!is_certificates(&cut), "{cut}");
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let refused = advised(io::Error::new(io::ErrorKind::InvalidData, unknown).into());
        assert!(is_certificates(&refused) && refused.to_string().contains("cacertfile"), "{refused}");
    }
}
