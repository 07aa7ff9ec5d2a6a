//! Fields that programs mark with `#[masked]`, as an operator meets them.

use saga_core::{Command, Endpoint, Event, HeldFilter, Inspect, OutboxFilter, Sends, saga, send, states};
use serde::{Deserialize, Serialize};
use tests::{
    File, eventually,
    house::held,
    tool::{command, json, run, said},
};
use transports::InProcess;

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Ordered {
    id: u64,
    #[masked]
    card: String,
}

/// Nobody handles it: it stays in the outbox.
#[derive(Debug, Command, Serialize, Deserialize)]
#[command(to = "nobank")]
struct Charge {
    id: u64,
    #[masked]
    #[serde(rename = "cardNumber")]
    card: String,
    cents: u64,
}

#[derive(Debug, Event, Serialize, Deserialize)]
#[event(from = "shop")]
struct Shipped {
    id: u64,
    #[masked]
    label: u64,
}

/// The same event, by a program that knows neither its fields nor what is masked.
#[derive(Debug, Event, Serialize, Deserialize)]
#[event(name = "shop.Shipped")]
struct Misshipped {
    id: u64,
    label: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    card: String,
    cents: u64,
}

#[states(data = Order, masked(card), fields(cents))]
enum Purchase {
    #[waits]
    Waiting {
        #[masked]
        pin: u64,
        floor: u64,
    },
    #[done]
    Done,
}

#[saga(name = "purchase", id = id: u64)]
impl Purchase {
    fn ordered(ordered: Ordered) -> (Order, Waiting, Sends<Charge>) {
        let Ordered { id, card } = ordered;
        let order = Order { card: card.clone(), cents: 500 };
        (order, Waiting { pin: 98_765, floor: 3 }, send(Charge { id, card, cents: 500 }))
    }

    fn shipped(_: Waiting, _: Shipped) -> Done {
        Done {}
    }
}

const CARD: &str = "4111-2222";
const LABEL: &str = "5555-6666";
const MASK: &str = "•••";

#[tokio::test(flavor = "multi_thread")]
async fn masked_fields_are_shown_to_nobody_who_does_not_ask_for_them() {
    let file = File::create();
    let builder = Endpoint::builder("shop", InProcess::new(), file.store("shop.db").await).saga::<Purchase>();
    let shop = builder.settings(|settings| settings.keep_messages = true).start().await.expect("the shop starts");
    let mut session = shop.session().await.expect("a session opens");
    session.publish(Ordered { id: 1, card: CARD.into() });
    session.commit().await.expect("the session commits");
    let row = eventually("the command that nobody takes", || async {
        let rows = shop.store().outbox(&OutboxFilter::default(), 10).await.ok()?;
        rows.into_iter().find(|row| row.kind == "command")
    })
    .await;
    assert_eq!(row.masked(), ["card", "cardNumber"], "its envelope names its masked fields as JSON may have them");
    let mut session = shop.session().await.expect("a session opens");
    session.publish(Ordered { id: 2, card: CARD.into() });
    session.publish(Misshipped { id: 1, label: LABEL.into() });
    session.commit().await.expect("the session commits");
    let message = eventually("the event that cannot be read", || async {
        shop.store().held(&HeldFilter::default(), 10).await.ok()?.into_iter().next()
    })
    .await;
    assert_eq!(message.masked(), ["label"], "its receiver knows what its sender does not");
    let (url, id) = (format!("sqlite:{}", file.folder.join("shop.db").display()), message.message_id.as_str());
    let url = &[url.as_str()];
    for arguments in [
        &["sagas", "show", "purchase", "1"][..],
        &["--json", "sagas", "show", "purchase", "1"],
        &["--json", "sagas", "list"],
        &["export", "purchase"],
        &["outbox", "show", &row.id],
        &["--json", "outbox", "show", &row.id],
        &["held", "show", id],
        &["--json", "held", "show", id],
        &["held", "list"],
        &["held", "groups"],
    ] {
        let (code, out, err) = run(url, arguments);
        // lists tell the error alone, which quotes nothing
        let hides = out.contains(MASK) || matches!(arguments, ["held", "list" | "groups"]);
        assert!(code == 0 && hides, "{arguments:?}: {out}{err}");
        for secret in [CARD, LABEL, "98765"] {
            assert!(!format!("{out}{err}").contains(secret), "{arguments:?} shows {secret}: {out}{err}");
        }
    }
    let (_, _, err) = run(url, &["export", "purchase"]);
    assert!(err.contains("masked fields (card)") && err.contains("--unmasked"), "an export says that it hides: {err}");
    for (arguments, secrets) in [
        (&["sagas", "show", "purchase", "1"][..], &[CARD, "98765"][..]),
        (&["export", "purchase"], &[CARD]),
        (&["outbox", "show", &row.id], &[CARD]),
        (&["held", "show", id], &[LABEL]),
    ] {
        let (_, out, err) = run(url, &[&["--unmasked"], arguments].concat());
        assert!(secrets.iter().all(|secret| out.contains(secret)), "{arguments:?} --unmasked: {out}{err}");
    }
    let (_, out, _) = run(url, &["sagas", "show", "purchase", "1"]);
    assert!(out.contains("500") && out.contains("\"floor\": 3"), "what is not masked is shown: {out}");

    // an older program kept the card as a field: nobody guesses at it
    let kept = "INSERT INTO sagabus_field (name, value, saga, id) VALUES ('purchase by card', $1, 'purchase', '1')";
    sqlx::query(kept).bind(CARD).execute(shop.store().writer()).await.expect("the row is written");
    let by_card = format!("card={CARD}");
    let (code, out, err) = run(url, &["sagas", "list", "--where", &by_card]);
    assert!(code == 1 && out.is_empty() && err.contains("is called card; there are: cents"), "{out}{err}");
    for arguments in
        [&["sagas", "list", "--where", "cents=500"][..], &["--unmasked", "sagas", "list", "--where", &by_card]]
    {
        let (code, out, err) = run(url, arguments);
        assert!(code == 0 && out.contains("purchase\t1\t"), "{arguments:?}: {out}{err}");
    }
    let (_, out, _) = run(url, &["sagas", "show", "purchase", "1"]);
    assert!(out.contains(&format!("field   card {MASK}\nfield   cents 500\n")), "{out}");

    let edit = ["held", "edit", id, "--reason", "by test"];
    let (code, _, err) = said(&command(url, &edit).env("EDITOR", "true").output().expect("the program runs"));
    assert!(code == 1 && err.contains("--unmasked opens it") && err.contains("[SB0078]"), "{err}");
    let (code, out, err) = run(url, &[&["--json"], &edit[..], &["--body", r#"{"id":1,"label":7}"#]].concat());
    assert_eq!(code, 0, "a whole new body needs no look at the old one: {out}{err}");
    assert_eq!(json(&out)["items"][0]["old_body"], r#"{"id":1,"label":"•••"}"#, "nor does its answer show it: {out}");
    eventually("the event with its new body to be handled", || async {
        held(shop.store()).await.is_empty().then_some(())
    })
    .await;
    let (_, out, _) = run(url, &["--json", "held", "show", id]);
    assert_eq!(json(&out)["operations"][0]["items"][0]["old_body"], r#"{"id":1,"label":"•••"}"#, "{out}");
    let (_, out, _) = run(url, &["--unmasked", "--json", "held", "show", id]);
    let kept = json(&out)["operations"][0]["items"][0]["old_body"].to_string();
    assert!(kept.contains(LABEL), "the record has it: {out}");
    shop.stop().await.expect("an orderly end");

    // nobody takes it now: it waits in the outbox, and its sender is a person who knows of no masks
    let body = r#"{"id":2,"label":55556666}"#;
    let given = ["sagas", "send", "purchase", "2", "shop.Shipped", "--body", body, "--reason", "by test"];
    let (code, out, err) = run(url, &[&["--json"], &given[..]].concat());
    assert_eq!(code, 0, "{out}{err}");
    let (_, out, err) = run(url, &["--json", "outbox", "list", "--type", "shop.Shipped"]);
    let row = json(&out)[0]["id"].as_str().unwrap_or_else(|| panic!("{out}{err}")).to_owned();
    let (_, out, _) = run(url, &["outbox", "show", &row]);
    assert!(out.contains(MASK) && !out.contains("55556666"), "{out}");
}
