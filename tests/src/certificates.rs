//! Certificates for one test, as PEM files.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An authority that signs certificates. Its files are gone when this process is.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate with its key, and the authority that signed it.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The authority's own certificate.
    pub authority: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// When its folder cannot be written.
    pub fn create(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sagabus-certificates-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        servers::when_we_are_gone(&format!("rm -rf '{}'", folder.display())).expect("there is a shell");
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, new_key()).expect("an authority signs itself");
        write(&folder.join("ca.pem"), &issuer.pem());
        Self { issuer, folder }
    }

    /// A certificate for somebody, and for these host names.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn sign(&self, who: &str, hosts: &[&str]) -> Certificate {
        let key = new_key();
        let signed = params(who, hosts).signed_by(&key, &self.issuer).expect("the authority signs");
        let file = |end: &str| self.folder.join(format!("{who}{end}"));
        let files = Certificate { authority: self.folder.join("ca.pem"), certificate: file(".pem"), key: file(".key") };
        write(&files.certificate, &signed.pem());
        write(&files.key, &key.serialize_pem());
        files
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("the names are host names");
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key is made")
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("the folder for temporary files can be written");
}
