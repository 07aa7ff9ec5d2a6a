//! Version 2: an excellent score needs nobody; above the manager there is the director, and one state knows who is
//! asked. Instances of version 1 go on from where they are.

use crate::messages::*;
use sagabus::prelude::*;
use serde::Deserialize;
use uuid::Uuid;

/// Every state knows the application.
#[rustfmt::skip] // a state a line
#[states(data = Applied)]
pub(crate) enum Onboarding {
    #[waits] Scoring,
    #[was("AwaitingClerk")] AwaitingApproval { role: Role, score: u8 },
    #[legacy] AwaitingManager { score: u8 },
    #[waits] Closing, // the desk always answers
    #[waits] AddingToCrm,
    #[done] Welcomed,
    #[done]
    #[ignores(Approved, Declined)]
    Refused { reason: String },
}

/// `AwaitingClerk`, as version 1 stored it.
#[derive(Deserialize)]
pub(crate) struct AwaitingClerk {
    score: u8,
}

impl Upcast<1> for AwaitingApproval {
    type Old = AwaitingClerk;
    fn upcast(old: AwaitingClerk) -> Result<Self, String> {
        Ok(Self { role: Role::Clerk, score: old.score })
    }
}

type Asks = (AwaitingApproval, Sends<Approve>, After<Escalate>);
type Adds = (AddingToCrm, Sends<AddToCrm>);
type Refuses = (Refused, Sends<SendMail>);

#[derive(Then)]
pub(crate) enum Rated {
    Excellent(Adds),
    Fair(Asks),
    Poor(Refuses),
}

#[saga(name = "onboarding", id = customer: Uuid, version = 2)]
impl Onboarding {
    fn applied(it: Applied) -> (Applied, Scoring, Sends<Score>) {
        let score = it.score();
        (it, Scoring, send(score))
    }
    fn scored(_: Scoring, it: Scored, who: &Applied) -> Rated {
        match it.score {
            ..40 => Rated::Poor(refuse(who, "your score is too low")),
            90.. => Rated::Excellent(add(who)),
            score => Rated::Fair(ask(who, Role::Clerk, score)),
        }
    }

    fn escalate(it: AwaitingApproval, _: Escalate, who: &Applied) -> Either<Asks, (Closing, Sends<CloseTask>)> {
        match it.role.above() {
            Some(role) => Either::A(ask(who, role, it.score)),
            None => Either::B((Closing, send(who.close_task()))),
        }
    }
    fn escalate_v1(it: AwaitingManager, _: Escalate, who: &Applied) -> Asks {
        ask(who, Role::Director, it.score)
    }
    fn closed(_: Closing, _: TaskClosed, who: &Applied) -> Refuses {
        refuse(who, "nobody found the time")
    }
    fn decided(it: Closing, _: TaskDecided) -> Closing {
        it // somebody found the time after all, and was told so: the verdict counts
    }

    #[when(AwaitingApproval, AwaitingManager, Closing)]
    fn approved(self, _: Approved, who: &Applied) -> Adds {
        add(who)
    }
    #[when(AwaitingApproval, AwaitingManager, Closing)]
    fn declined(self, _: Declined, who: &Applied) -> Refuses {
        refuse(who, "we decided against it")
    }

    fn added(_: AddingToCrm, _: AddedToCrm, who: &Applied) -> (Welcomed, Sends<SendMail>) {
        (Welcomed, send(who.mail("welcome!")))
    }
}

fn ask(who: &Applied, role: Role, score: u8) -> Asks {
    (AwaitingApproval { role, score }, send(who.approve(role, score)), after(who.patience, Escalate {}))
}
fn add(who: &Applied) -> Adds {
    (AddingToCrm, send(who.add_to_crm()))
}
fn refuse(who: &Applied, reason: &str) -> Refuses {
    (Refused { reason: reason.into() }, send(who.mail(&format!("we are sorry: {reason}."))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::testing::{Explore, Harness};

    const ID: Uuid = Uuid::from_u128(7);

    fn applied() -> Applied {
        Applied { customer: ID, name: "Ann".into(), patience: seconds(10) }
    }

    #[test]
    fn above_the_manager_there_is_the_director() {
        let asked = Harness::<Onboarding>::begin(applied()).give(Scored { customer: ID, score: 60 });
        let director = asked.advance(seconds(20)).expect_state("AwaitingApproval").expect_sent::<Approve>(3);
        director.clone().give(Approved { customer: ID }).expect_state("AddingToCrm").expect_timers(0);
        let closing = director.advance(seconds(10)).expect_state("Closing").expect_sent::<CloseTask>(1);
        closing.clone().give(TaskClosed { customer: ID }).expect_state("Refused").expect_sent::<SendMail>(1);
        let decided = closing.give(TaskDecided { customer: ID }).expect_sent::<SendMail>(0);
        decided.give(Approved { customer: ID }).expect_state("AddingToCrm");
        let excellent = Harness::<Onboarding>::begin(applied()).give(Scored { customer: ID, score: 95 });
        excellent.expect_state("AddingToCrm").expect_sent::<Approve>(0);
    }

    #[test]
    fn what_version_1_stored_goes_on() {
        let waiting = AwaitingApproval::upcast(AwaitingClerk { score: 60 });
        assert_eq!(waiting, Ok(AwaitingApproval { role: Role::Clerk, score: 60 }));
        let (asked, ..) = Onboarding::escalate_v1(AwaitingManager { score: 60 }, Escalate {}, &applied());
        assert_eq!(asked, AwaitingApproval { role: Role::Director, score: 60 });
    }

    /// Every order of verdicts and timers, each answer once or twice: one mail for everybody.
    #[test]
    fn everybody_gets_one_mail_in_any_story() {
        let explored = Explore::<Onboarding>::from(applied())
            .answers(|it: Score| [20, 60, 95].map(|score| Scored { customer: it.customer, score }.into()).into())
            .answers(|it: Approve| {
                vec![Approved { customer: it.customer }.into(), Declined { customer: it.customer }.into()]
            })
            .answers(|it: CloseTask| {
                vec![TaskClosed { customer: it.customer }.into(), TaskDecided { customer: it.customer }.into()]
            })
            .answers(|it: AddToCrm| vec![AddedToCrm { customer: it.customer }.into()])
            .at_most_once::<AddToCrm>()
            .in_the_end("there is one mail", |end| end.sent::<SendMail>() == 1)
            .duplicates()
            .run();
        explored.expect_no_breach();
    }

    #[test]
    fn the_chart_is_as_agreed() {
        let chart = Onboarding::chart();
        assert_eq!(chart.verify(), [] as [String; 0]);
        let shown = chart.to_mermaid();
        assert!(include_str!("../README.md").contains(&shown), "README.md is to show:\n{shown}");
    }
}
