//! A broker and a database server that belong to one test, which may stop them.

use crate::{BrokerAt, Vhost};
use outbox::Postgres;
use servers::{Broker, INSTALL, Programs, Server};
use sqlx::{Connection, Executor, PgConnection};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::block_in_place,
};

/// Two brokers at a time are too much for a small machine, and these tests measure time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Both servers, and a virtual host.
#[derive(Debug)]
pub struct Own {
    /// A virtual host of the broker.
    pub vhost: Vhost,
    /// The broker.
    pub broker: Broker,
    /// The database server.
    pub server: Server,
    _turn: MutexGuard<'static, ()>,
}

impl Own {
    /// Starts both; `erlang` are further arguments for the broker's virtual machine.
    ///
    /// # Panics
    /// When they are not installed, or do not start.
    pub async fn start(erlang: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let programs = Programs::find()
            .unwrap_or_else(|| panic!("this test stops its own RabbitMQ and PostgreSQL: install them (`{INSTALL}`)"));
        let (broker, server) = block_in_place(|| {
            let mut broker = Broker::prepare(&programs, erlang).expect("the folder for temporary files can be written");
            broker.launch().expect("the broker's program runs");
            let server = Server::prepare(&programs, 100).expect("a database server is made");
            server.start().expect("the database server starts");
            broker.managed().expect("the broker starts");
            (broker, server)
        });
        let vhost = Vhost::create_on(BrokerAt::from(&broker), "").await;
        Self { vhost, broker, server, _turn: turn }
    }

    /// A new database.
    ///
    /// # Panics
    /// When the server does not let us.
    pub async fn store(&self, name: &str) -> Postgres {
        let url = self.server.url("postgres");
        let mut server = PgConnection::connect(&format!("{url}/postgres")).await.expect("the server is there");
        server.execute(&*format!("CREATE DATABASE {name}")).await.expect("the server creates a database");
        Postgres::with_connections(&format!("{url}/{name}"), 8).expect("the address is a PostgreSQL URL")
    }

    /// Databases for three endpoints.
    pub async fn stores(&self) -> [Postgres; 3] {
        [self.store("journeys").await, self.store("worker").await, self.store("listener").await]
    }
}
