//! What a TLS handshake with PostgreSQL that failed means.

use rustls::{AlertDescription, CertificateError};
use sqlx::Error;
use std::io::ErrorKind;

const AUTHORITY: &str = "the server's certificate is by no authority that this machine trusts: name the authority's \
                         own certificate in the URL, `sslrootcert=/path/to/ca.pem`";
const NAME: &str = "name the server in the URL as its certificate does, or have a certificate made for this name \
                    (subjectAltName)";
const EXPIRED: &str = "renew the server's certificate, or set this machine's clock";
const ANOTHER: &str = "give the server another certificate";
const OURS: &str = "the server does not take our certificate: `sslcert` must be valid and by an authority that it \
                    trusts (`ssl_ca_file`)";
const NO_TLS: &str = "switch it on there (`ssl = on`), or write `sslmode=disable`";
const NO_FILE: &str =
    "is there a file that the URL names (`sslrootcert`, `sslcert`, `sslkey`), or the server's socket?";

/// What to do about it, if certificates are to blame or there is no TLS: waiting does not help.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    let failure = match error {
        Error::Io(io) => io.get_ref()?.downcast_ref()?,
        Error::Tls(inner) if inner.to_string().contains("does not support TLS") => return Some(NO_TLS),
        Error::Tls(inner) => inner.downcast_ref()?,
        _ => return None,
    };
    Some(match failure {
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => AUTHORITY,
        InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => NAME,
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => EXPIRED,
        InvalidCertificate(_) => ANOTHER,
        AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked,
        ) => OURS,
        _ => return None,
    })
}

/// What to do if a file is missing: the error does not say which one.
pub(super) fn missing(error: &Error) -> Option<&'static str> {
    match error {
        Error::Io(io) if matches!(io.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Some(NO_FILE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::store_error;
    use saga_core::StoreErrorKind as Kind;
    use std::io;

    #[test]
    fn certificates_are_not_waited_for_and_a_broken_connection_is() {
        let failed = |failure: rustls::Error| store_error(Error::Io(io::Error::new(ErrorKind::InvalidData, failure)));
        let unknown = failed(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(unknown.kind(), Kind::Invalid);
        assert!(unknown.to_string().contains("sslrootcert"), "{unknown}");
        let refused = failed(rustls::Error::AlertReceived(AlertDescription::UnknownCA));
        assert!(refused.to_string().contains("`sslcert`"), "{refused}");
        let none = store_error(Error::Tls("server does not support TLS".into()));
        assert!(none.to_string().contains("`ssl = on`"), "{none}");
        assert_eq!(store_error(Error::Io(ErrorKind::ConnectionReset.into())).kind(), Kind::Unavailable);
        let missing = store_error(Error::Io(ErrorKind::NotFound.into()));
        assert_eq!(missing.kind(), Kind::Unavailable);
        assert!(missing.to_string().contains("sslrootcert"), "{missing}");
    }
}
