//! Version 1: a score, a clerk or after a while the manager, the CRM, a mail.

use crate::messages::*;
use sagabus::prelude::*;
use uuid::Uuid;

/// Every state knows the application.
#[rustfmt::skip] // a state a line
#[states(data = Applied)]
pub(crate) enum Onboarding {
    #[waits] Scoring,
    AwaitingClerk { score: u8 },
    AwaitingManager { score: u8 },
    #[waits] Closing, // the desk always answers
    #[waits] AddingToCrm,
    #[done] Welcomed,
    #[done]
    #[ignores(Approved, Declined)]
    Refused { reason: String },
}

type Refuses = (Refused, Sends<SendMail>);

#[saga(name = "onboarding", id = customer: Uuid)]
impl Onboarding {
    fn applied(it: Applied) -> (Applied, Scoring, Sends<Score>) {
        let score = it.score();
        (it, Scoring, send(score))
    }
    fn scored(
        _: Scoring,
        it: Scored,
        who: &Applied,
    ) -> Either<(AwaitingClerk, Sends<Approve>, After<Escalate>), Refuses> {
        match it.score {
            ..40 => Either::B(refuse(who, "your score is too low")),
            score => {
                let ask = send(who.approve(Role::Clerk, score));
                Either::A((AwaitingClerk { score }, ask, after(who.patience, Escalate {})))
            }
        }
    }

    fn escalate(it: AwaitingClerk, _: Escalate, who: &Applied) -> (AwaitingManager, Sends<Approve>, After<Escalate>) {
        let score = it.score;
        (AwaitingManager { score }, send(who.approve(Role::Manager, score)), after(who.patience, Escalate {}))
    }
    fn nobody(_: AwaitingManager, _: Escalate, who: &Applied) -> (Closing, Sends<CloseTask>) {
        (Closing, send(who.close_task()))
    }
    fn closed(_: Closing, _: TaskClosed, who: &Applied) -> Refuses {
        refuse(who, "nobody found the time")
    }
    fn decided(it: Closing, _: TaskDecided) -> Closing {
        it // somebody found the time after all, and was told so: the verdict counts
    }

    #[when(AwaitingClerk, AwaitingManager, Closing)]
    fn approved(self, _: Approved, who: &Applied) -> (AddingToCrm, Sends<AddToCrm>) {
        (AddingToCrm, send(who.add_to_crm()))
    }
    #[when(AwaitingClerk, AwaitingManager, Closing)]
    fn declined(self, _: Declined, who: &Applied) -> Refuses {
        refuse(who, "we decided against it")
    }

    fn added(_: AddingToCrm, _: AddedToCrm, who: &Applied) -> (Welcomed, Sends<SendMail>) {
        (Welcomed, send(who.mail("welcome!")))
    }
}

fn refuse(who: &Applied, reason: &str) -> Refuses {
    (Refused { reason: reason.into() }, send(who.mail(&format!("we are sorry: {reason}."))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus::testing::Harness;

    const ID: Uuid = Uuid::from_u128(7);

    #[test]
    fn the_manager_is_asked_after_ten_seconds_and_nobody_waits_for_ever() {
        let applied = Applied { customer: ID, name: "Ann".into(), patience: seconds(10) };
        let asked = Harness::<Onboarding>::begin(applied).give(Scored { customer: ID, score: 60 });
        let escalated = asked.expect_state("AwaitingClerk").advance(seconds(10)).expect_state("AwaitingManager");
        escalated.clone().give(Approved { customer: ID }).expect_state("AddingToCrm").expect_timers(0);
        let closing = escalated.advance(seconds(10)).expect_state("Closing").expect_sent::<CloseTask>(1);
        let closed = closing.clone().give(TaskClosed { customer: ID });
        closed.expect_state("Refused").expect_sent::<SendMail>(1).expect_timers(0);
        let decided = closing.give(TaskDecided { customer: ID }).expect_sent::<SendMail>(0);
        decided.give(Approved { customer: ID }).expect_state("AddingToCrm");
    }

    #[test]
    fn the_chart_is_as_agreed() {
        let chart = Onboarding::chart();
        assert_eq!(chart.verify(), [] as [String; 0]);
        let shown = chart.to_mermaid();
        assert!(include_str!("../README.md").contains(&shown), "README.md is to show:\n{shown}");
    }
}
