//! Where the broker and the databases are: from the options, else from the environment.

use crate::ledger::Service;
use clap::Args;
use std::{error::Error, fmt};
use url::Url;

/// The environment's broker, where no option names one.
pub(crate) const BROKER: &str = "ORDERING_BROKER_URL";
/// The environment's database server, where no option names one.
pub(crate) const DATABASE: &str = "ORDERING_DATABASE_URL";

/// The command line is wrong: exit code 2, as clap has it.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

/// A variable of the environment; an empty one counts as unset. Not clap's `env`: a given option must win over a
/// variable of another option, and help must not show a password.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where PostgreSQL is, and by which names.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// A PostgreSQL server, `postgres://user@host:5432`; each service has its own database there [env:
    /// ORDERING_DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// A prefix for the names of databases and queues, so that several systems can run side by side
    #[arg(long, value_name = "P")]
    prefix: Option<String>,
}

impl Server {
    /// What is put before the names.
    pub(crate) fn prefix(&self) -> String {
        self.prefix.as_ref().map(|prefix| format!("{prefix}_")).unwrap_or_default()
    }

    /// The URL of a service's database on a server.
    pub(crate) fn database_of(&self, server: &str, service: Service) -> Result<String, Usage> {
        let mut url = Url::parse(server).map_err(|error| Usage(format!("--database: {error}; {LOOKS}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(Usage(format!("--database: `{}` is not PostgreSQL; {LOOKS}", url.scheme())));
        }
        if url.cannot_be_a_base() {
            return Err(Usage(format!("--database: a host is missing; {LOOKS}")));
        }
        url.set_path(&format!("{}{}", self.prefix(), service.name()));
        Ok(url.into())
    }
}

const LOOKS: &str = "it looks like postgres://user@host:5432";

/// Host, port and path of a URL, for logs: no user, no password, no options.
pub(crate) fn place_of(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else {
        // a list of brokers, which is not a valid URL
        let hosts = url.rsplit('@').next().unwrap_or_default();
        return hosts.split('?').next().unwrap_or_default().to_owned();
    };
    url.set_query(None);
    url[url::Position::BeforeHost..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(prefix: Option<&str>) -> Server {
        Server { database: None, prefix: prefix.map(str::to_owned) }
    }

    #[test]
    fn each_service_has_its_database_on_the_server() {
        for (url, prefix, database) in [
            ("postgres://postgres@db:5432", None, "postgres://postgres@db:5432/payment"),
            ("postgres://u:p%40ss@db/other?sslmode=disable", None, "postgres://u:p%40ss@db/payment?sslmode=disable"),
            ("postgresql://db/", Some("test"), "postgresql://db/test_payment"),
            ("postgres://u@[::1]:5/a/b", Some("x"), "postgres://u@[::1]:5/x_payment"),
        ] {
            assert_eq!(server(prefix).database_of(url, Service::Payment).expect(url), database);
        }
    }

    #[test]
    fn another_scheme_is_named_and_no_password_is_shown() {
        for (url, says) in [
            ("mysql://u:s3cret@x", "`mysql` is not PostgreSQL"),
            ("sqlite:a.db", "`sqlite` is not PostgreSQL"),
            ("u:s3cret@x", "is not PostgreSQL"),
            ("postgres:x", "a host is missing"),
            ("/nowhere", "relative URL"),
            ("postgres://u:s3cret@x:port", "invalid port"),
        ] {
            let error = server(None).database_of(url, Service::Payment).expect_err(url).to_string();
            assert!(error.contains(says) && error.ends_with(LOOKS) && !error.contains("s3cret"), "{url}: {error}");
        }
    }

    #[test]
    fn logs_show_where_a_server_is_and_nothing_else() {
        for (url, place) in [
            ("amqp://guest:s3cret@127.0.0.1:5672/%2f?heartbeat=5", "127.0.0.1:5672/%2f"),
            ("amqps://u:s3cret@a:5671,b:5671/v?heartbeat=5", "a:5671,b:5671/v"),
            ("postgres://u:s3cret@db/payment?password=s3cret", "db/payment"),
        ] {
            assert_eq!(place_of(url), place);
        }
    }
}
