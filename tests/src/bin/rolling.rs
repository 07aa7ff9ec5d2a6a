//! A small service in two versions, for the test of a rolling deployment: `rolling VERSION BROKER DATABASE [--check]`.
//!
//! Version 2 keeps cents instead of euros, calls a state otherwise, and lets a seat be chosen.

use outbox::Postgres;
use saga_core::{Endpoint, EndpointBuilder};
use std::{error::Error, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use transports::RabbitMq;

mod one {
    use saga_core::{Sends, saga, send, states};
    use tests::rolling::{Charge, Charged, Deliver, TicketCollected, TicketOrdered};

    #[states]
    pub(crate) enum Ticket {
        #[waits]
        Charging { euros: f64 },
        #[waits]
        Printed { euros: f64 },
        #[done]
        Collected,
    }

    #[saga(name = "ticket", id = ticket: u64)]
    impl Ticket {
        fn ordered(it: TicketOrdered) -> (Charging, Sends<Charge>) {
            let TicketOrdered { ticket, cents } = it;
            (Charging { euros: cents as f64 / 100.0 }, send(Charge { ticket, cents }))
        }

        fn charged(it: Charging, _: Charged) -> Printed {
            Printed { euros: it.euros }
        }

        fn collected(it: Printed, collected: TicketCollected) -> (Collected, Sends<Deliver>) {
            let cents = (it.euros * 100.0).round() as i64;
            (Collected, send(Deliver { ticket: collected.ticket, cents }))
        }
    }
}

mod two {
    use saga_core::{Sends, Upcast, saga, send, states};
    use serde::Deserialize;
    use tests::rolling::{Charge, Charged, Deliver, SeatChosen, TicketCollected, TicketOrdered};

    #[states]
    pub(crate) enum Ticket {
        #[waits]
        Charging { cents: i64 },
        #[waits]
        #[was("Printed")]
        Ready { cents: i64, seat: Option<String> },
        #[done]
        Collected,
    }

    /// Both states, as version 1 stored them.
    #[derive(Deserialize)]
    pub(crate) struct Euros {
        euros: f64,
    }

    impl Euros {
        fn cents(&self) -> i64 {
            (self.euros * 100.0).round() as i64
        }
    }

    impl Upcast<1> for Charging {
        type Old = Euros;
        fn upcast(old: Euros) -> Result<Self, String> {
            Ok(Self { cents: old.cents() })
        }
    }

    impl Upcast<1> for Ready {
        type Old = Euros;
        fn upcast(old: Euros) -> Result<Self, String> {
            Ok(Self { cents: old.cents(), seat: None })
        }
    }

    #[saga(name = "ticket", id = ticket: u64, version = 2)]
    impl Ticket {
        fn ordered(it: TicketOrdered) -> (Charging, Sends<Charge>) {
            let TicketOrdered { ticket, cents } = it;
            (Charging { cents }, send(Charge { ticket, cents }))
        }

        fn charged(it: Charging, _: Charged) -> Ready {
            Ready { cents: it.cents, seat: None }
        }

        fn chosen(it: Ready, chosen: SeatChosen) -> Ready {
            Ready { seat: Some(chosen.seat), ..it }
        }

        fn collected(it: Ready, collected: TicketCollected) -> (Collected, Sends<Deliver>) {
            (Collected, send(Deliver { ticket: collected.ticket, cents: it.cents }))
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [version, broker, database, more @ ..] = arguments.as_slice() else {
        return Err("rolling VERSION BROKER DATABASE [--check]".into());
    };
    let endpoint = Endpoint::builder("desk", RabbitMq::new(broker)?, Postgres::with_connections(database, 4)?);
    let endpoint: EndpointBuilder<Postgres> = match version.as_str() {
        "1" => endpoint.saga::<one::Ticket>(),
        "2" => endpoint.saga::<two::Ticket>(),
        other => return Err(format!("there is no version {other}").into()),
    };
    if more.iter().any(|argument| argument == "--check") {
        let checked = endpoint.check(|instance| println!("{instance}")).await?;
        println!("{checked}");
        return Ok(checked.exit_code());
    }
    let endpoint = endpoint.settings(|settings| settings.poll = Duration::from_millis(100)).start().await?;
    println!("started");
    signal(SignalKind::terminate())?.recv().await;
    endpoint.stop().await?;
    Ok(ExitCode::SUCCESS)
}
