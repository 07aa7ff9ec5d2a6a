//! Score, desk, CRM and mail, simulated; and the endpoint of the process, in either version.

use crate::{books::Books, messages::*};
use sagabus::{endpoint::EndpointBuilder, port::Transport, prelude::*};
use std::time::Duration;
use uuid::Uuid;

/// All endpoints.
pub(crate) const ALL: [&str; 5] = ["onboarding", "desk", "scoring", "crm", "mail"];

fn endpoint<Db: Books>(name: &str, transport: &(impl Transport + Clone), store: &Db) -> EndpointBuilder<Db> {
    let endpoint = Endpoint::builder(name, transport.clone(), store.clone());
    // how long messages of a process that was killed wait for the next one
    endpoint.settings(|settings| settings.lease = Duration::from_secs(3))
}

/// The process, in the version that `S` is.
pub(crate) fn onboarding<S: Saga, Db: Books>(transport: &(impl Transport + Clone), store: &Db) -> EndpointBuilder<Db> {
    endpoint("onboarding", transport, store).saga::<S>()
}

/// Where people decide.
pub(crate) fn desk<Db: Books>(transport: &(impl Transport + Clone), store: &Db) -> EndpointBuilder<Db> {
    endpoint("desk", transport, store).handlers(Desk)
}

/// Those who answer at once.
pub(crate) fn others<Db: Books>(transport: &(impl Transport + Clone), store: &Db) -> [EndpointBuilder<Db>; 3] {
    [
        endpoint("scoring", transport, store).handlers(Scoring),
        endpoint("crm", transport, store).handlers(Crm),
        endpoint("mail", transport, store).handlers(Mail),
    ]
}

struct Scoring;

#[handlers]
impl Scoring {
    async fn score<Db: Books>(&self, it: Score, _: &mut Context<'_, Db>) -> Result<ScoreOutcome, HandlerError> {
        Ok(Scored { customer: it.customer, score: score_of(it.customer) }.into())
    }
}

/// A score that is the same on each run: one in nine is poor, two are excellent.
fn score_of(customer: Uuid) -> u8 {
    35 + ((customer.as_u128() + 2) % 9) as u8 * 8
}

struct Desk;

#[handlers]
impl Desk {
    /// Puts a task on the list, or in the place of the one that it escalates. If somebody has decided in the meantime,
    /// that is the answer.
    async fn approve<Db: Books>(
        &self,
        it: Approve,
        cx: &mut Context<'_, Db>,
    ) -> Result<Either<Verdict, Later>, HandlerError> {
        let (id, later) = (it.customer.to_string(), cx.later());
        let token = serde_json::to_string(&later)?;
        let tx = cx.tx().await?;
        let put = "INSERT INTO task (customer, name, score, role, later, verdict) VALUES ($1, $2, $3, $4, $5, 'open')
            ON CONFLICT (customer) DO UPDATE SET role = excluded.role, later = excluded.later
            WHERE task.verdict = 'open'";
        if Db::run(tx, put, &[&id, &it.name, &it.score.to_string(), it.role.name(), &token]).await? == 1 {
            return Ok(Either::B(later));
        }
        let decided = Db::find(tx, "SELECT verdict FROM task WHERE customer = $1", &[&id]).await?;
        Ok(match decided.iter().flatten().next().map(String::as_str) {
            Some("approved") => Either::A(Approved { customer: it.customer }.into()),
            Some("declined") => Either::A(Declined { customer: it.customer }.into()),
            _ => Either::B(later), // closed: nobody waits for an answer
        })
    }

    /// The row decides who was first, as between two colleagues. It may be closed before it was opened: with several
    /// processes of the desk the question can come later.
    async fn close<Db: Books>(&self, it: CloseTask, cx: &mut Context<'_, Db>) -> Result<CloseOutcome, HandlerError> {
        let CloseTask { customer } = it;
        let (id, tx) = (customer.to_string(), cx.tx().await?);
        let close = "INSERT INTO task (customer, name, score, role, later, verdict)
            VALUES ($1, '', '', '', '', 'closed')
            ON CONFLICT (customer) DO UPDATE SET verdict = 'closed' WHERE task.verdict = 'open'";
        Db::run(tx, close, &[&id]).await?;
        let found = Db::find(tx, "SELECT verdict FROM task WHERE customer = $1", &[&id]).await?;
        Ok(match found.iter().flatten().any(|verdict| verdict == "closed") {
            true => TaskClosed { customer }.into(),
            false => TaskDecided { customer }.into(),
        })
    }
}

struct Crm;

#[handlers]
impl Crm {
    async fn add<Db: Books>(&self, it: AddToCrm, cx: &mut Context<'_, Db>) -> Result<CrmOutcome, HandlerError> {
        let add = "INSERT INTO crm (customer, name) VALUES ($1, $2)";
        Db::run(cx.tx().await?, add, &[&it.customer.to_string(), &it.name]).await?;
        Ok(AddedToCrm { customer: it.customer }.into())
    }
}

struct Mail;

#[handlers]
impl Mail {
    /// A second mail to a customer would break the key, and be found in the audit.
    async fn send<Db: Books>(&self, it: SendMail, cx: &mut Context<'_, Db>) -> Result<(), HandlerError> {
        let send = "INSERT INTO mail (customer, text) VALUES ($1, $2)";
        Db::run(cx.tx().await?, send, &[&it.customer.to_string(), &it.text]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{v1, v2};
    use sagabus::{InProcess, Postgres, endpoint::Wiring};

    /// Applications come to the desk, in a session.
    #[tokio::test]
    async fn everything_that_is_sent_is_taken_and_the_other_way_round() {
        let store = Postgres::new("postgres://nobody@nowhere/nothing").expect("nobody is asked yet");
        let bus = InProcess::new();
        let desk = desk(&bus, &store).wiring().sends::<Applied>();
        let [scoring, crm, mail] = others(&bus, &store).map(|endpoint| endpoint.wiring());
        let (one, two) = (onboarding::<v1::Onboarding, _>(&bus, &store), onboarding::<v2::Onboarding, _>(&bus, &store));
        for process in [one.wiring(), two.wiring()] {
            assert_eq!(Wiring::verify([&process, &desk, &scoring, &crm, &mail]), [] as [String; 0]);
        }
    }
}
