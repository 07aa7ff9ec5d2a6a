//! Logs: lines that a program can read, one a trouble, without bodies and passwords.

use crate::subscriber::{exported, logged};
use async_trait::async_trait;
use saga_core::{Command, Context, Endpoint, Envelope, Handle, HandlerError, Store};
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use std::{collections::HashSet, fmt, time::Duration};
use tests::{Database, Vhost, eventually, link, proxy::Proxy};
use transports::RabbitMq;

/// Stands in bodies and passwords, and nowhere else.
const SECRET: &str = "hunter2hunter2";

#[derive(Command, Serialize, Deserialize)]
#[command(to = "vault")]
struct Keep {
    id: u64,
    secret: String,
}

/// The id that is refused.
const REFUSED: u64 = 2;

struct Vault;

#[async_trait]
impl<Db: Store> Handle<Keep, Db> for Vault {
    async fn handle(&self, keep: Keep, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        cx.tx().await?;
        if keep.id == REFUSED { Err(HandlerError::permanent("it is full")) } else { Ok(()) }
    }
}

/// A line of JSON in which no key of an object comes twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without doubled keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, Self)) = map.next_entry::<String, Self>()? {
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(format!("`{key}` comes twice")));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }
}

/// The lines of the vault that have this text.
fn of_the_vault(text: &str) -> usize {
    logged().lines().filter(|line| line.contains("\"endpoint\":\"vault\"") && line.contains(text)).count()
}

async fn said(text: &str) {
    eventually(&format!("a line with `{text}`"), || async { (of_the_vault(text) > 0).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_tell_of_trouble_once_and_never_of_bodies_or_passwords() {
    exported();
    let (vhost, database) = (Vhost::create().await, Database::create().await);
    let place =
        |url: &str| url.rsplit_once('@').expect("the address names a user").1.split('/').next().unwrap().to_owned();
    let broker = Proxy::to(place(&vhost.url())).await;
    let server = Proxy::to(place(&database.url())).await;
    // the server trusts everyone, whatever the password
    let url = server.instead_of(&database.url()).replace('@', &format!(":{SECRET}@"));
    let store = outbox::Postgres::with_connections(&url, 4).expect("it is a URL");
    let transport = RabbitMq::new(&broker.instead_of(&vhost.url())).expect("it is a URL");
    let vault = Endpoint::builder("vault", transport.clone(), store).handle::<Keep>(Vault).start().await.unwrap();

    let keep = |id| Keep { id, secret: SECRET.into() };
    let mut session = vault.session().await.unwrap();
    session.send(keep(1));
    for _ in 0..50 {
        session.send(keep(REFUSED));
    }
    session.commit().await.unwrap();
    said("it is full").await;
    let mut stranger = link::attach(&vhost.transport(), "stranger", &[]).await;
    for (n, body) in [format!("{{\"id\":\"{SECRET}\"}}"), SECRET.to_owned(), format!("\"{SECRET}\"")].iter().enumerate()
    {
        let envelope = Envelope::new(format!("s{n}"), "vault.Keep", body.clone());
        let message = link::with_envelope(link::outgoing(n as u128, link::to("vault")), envelope);
        stranger.outgoing.send(message).expect("the link is open");
        link::report(&mut stranger).await;
    }
    said("\"reason\":\"undecodable\"").await;
    link::close(stranger).await;

    eventually("the database to be missed", || async {
        server.cut();
        let session = vault.session().await;
        if let Ok(mut session) = session {
            session.send(keep(1));
            let _ = session.commit().await; // it is cut, or not
        }
        (of_the_vault("for the database") > 0).then_some(())
    })
    .await;
    broker.cut();
    eventually("the broker to be missed, and back", || async {
        (vault.link() == saga_core::LinkState::Up && of_the_vault("\"level\":\"WARN\"") > 2).then_some(())
    })
    .await;
    vault.stop().await.unwrap();

    for wrong in [vhost.url().replace("guest@", &format!("{SECRET}@")), format!("amqp://guest:{SECRET}@127.0.0.1:1")] {
        let transport = RabbitMq::new(&wrong).expect("it is a URL");
        let builder = Endpoint::builder("vault", transport, database.store());
        let builder = builder.settings(|settings| settings.connect = Duration::from_secs(1));
        let refused = builder.start().await.map(drop).unwrap_err().to_string();
        assert!(!refused.contains(SECRET), "{refused}");
    }

    assert_eq!(of_the_vault("it is full"), 1, "one line for 50 messages");
    let logged = logged();
    for line in logged.lines() {
        assert!(!line.contains(SECRET), "{line}");
        serde_json::from_str::<Unique>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert!(serde_json::from_str::<Unique>("{\"a\":{\"b\":1,\"b\":2}}").is_err(), "the test notices doubled keys");
}
