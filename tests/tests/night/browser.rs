//! The night in a browser.

use crate::{
    driver::Browser,
    house::{BAD_RELEASE, MAIL_AWAY, Night, STRANGE, STRANGE_JOURNEY},
};
use tests::{eventually, tool};

/// The pages that the navigation shows.
const PAGES: [&str; 8] = ["/", "/sagas", "/held", "/outbox", "/timers", "/processes", "/versions", "/operations"];

/// The link of a trouble on the first page.
fn trouble(text: &str) -> String {
    format!("//li[contains(., '{text}')]//a[.='Show them']")
}

/// The first link to an id in a table.
const FIRST: &str = "(//tbody//a[@class='id'])[1]";

fn button(text: &str) -> String {
    format!("//button[contains(., '{text}')]")
}

/// From the first page to where a trouble is.
async fn follow(browser: &Browser, text: &str) {
    browser.go("/").await;
    browser.click(&trouble(text)).await;
}

/// Says why, and presses a button.
async fn act(browser: &Browser, why: &str, what: &str) {
    browser.fill("//input[@name='reason']", why).await;
    browser.click(&button(what)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_night_is_mended_in_a_browser_from_the_first_page() {
    let mut night = Night::begins().await;
    let urls = night.urls();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let served = tool::Served::by(tool::command(&urls, &["dashboard", "--listen", "127.0.0.1:0"]));
    let browser = Browser::open(&served.url).await;
    browser.sees("Needs a person: 6").await;
    browser.sees("is unreachable. What is in it is not shown.").await;

    every_page_fits(&browser).await;
    a_timer_is_moved(&browser).await;
    the_bad_release_is_mended(&browser, &night).await;
    a_strange_message_is_edited(&browser).await;
    an_open_breaker_closes(&browser, &night).await; // before another journey ends, of which mails are sent
    a_paused_instance_goes_on(&browser).await;
    an_instance_that_waits_since_yesterday_ends(&browser).await;

    // only what cannot be mended yet is left
    home_says(&browser, "Needs a person: 1").await;
    night.warehouse_is_back().await;
    a_queue_is_back(&browser).await;
    home_says(&browser, "Nothing needs a person.").await;
    assert_eq!(browser.count("//*[contains(., 'unreachable')]").await, 0, "all databases are there");
    assert_eq!(browser.complaints().await, [""; 0], "the browser complains of nothing");

    night.is_clean().await;
    let mut expected: Vec<(&str, &str, usize)> = vec![
        ("held discard", "the client closed it again", 1),
        ("held edit", "the mainframe writes words", 1),
        ("held retry", "release 2.0.1 is deployed", 80),
        ("held retry", "release 2.0.1 is deployed", 100),
    ];
    expected.extend([("outbox send-now", "the mail server is back", 1); 12]);
    expected.push(("outbox send-now", "the warehouse is back", 1));
    expected.push(("saga send", "they closed it by phone", 1));
    expected.push(("timer move", "the bank is down until two", 1));
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(action, why, rows)| ("ann".to_owned(), action.to_owned(), why.to_owned(), rows))
        .collect();
    assert_eq!(night.audit().await, expected, "each action with its reason");
    drop(browser);
    night.ends().await;
}

/// Loads the first page until its summary is this.
async fn home_says(browser: &Browser, summary: &str) {
    eventually(&format!("the first page to say `{summary}`"), || async {
        browser.go("/").await;
        (browser.text("//*[@id='summary']").await == summary).then_some(())
    })
    .await;
}

/// On a telephone nothing stands beside the page.
async fn every_page_fits(browser: &Browser) {
    browser.width(400).await;
    for page in PAGES {
        browser.go(page).await;
        let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let beyond = browser.script(wide).await.expect("the script is right");
        assert_eq!(beyond, 0, "pixels of {page} beyond the right margin of a narrow window");
    }
    browser.width(1280).await;
}

async fn a_timer_is_moved(browser: &Browser) {
    browser.go("/").await;
    let card = "//section[h2[contains(., 'journeys')]]//dt[.='timers']/following-sibling::dd[1]";
    assert!(browser.text(card).await.contains("next in 2"), "the next timer is told");
    browser.click("//nav//a[.='Timers']").await;
    browser.click(FIRST).await;
    browser.sees("journeys.TooLate").await;
    browser.fill("//input[@name='in']", "2h").await;
    act(browser, "the bank is down until two", "Move it").await;
    browser.sees("the bank is down until two").await;
    browser.go("/").await;
    assert!(!browser.text(card).await.contains("next in 2"), "the next is another");
}

async fn the_bad_release_is_mended(browser: &Browser, night: &Night) {
    follow(browser, "worker: 180 messages are held as failed").await;
    browser.sees(BAD_RELEASE).await;
    browser.click(FIRST).await;
    assert!(browser.text("//textarea").await.contains("\"note\": \"please\""), "the body");
    browser.click("//main/p/a[@class='id']").await;
    browser.sees("client.Began").await;
    night.release.is_wrong(false);
    follow(browser, "worker: 180 messages are held as failed").await;
    browser.click(&button("Retry 180 of this filter")).await;
    browser.sees("Retry 180 messages?").await;
    browser.sees("is unreachable.").await;
    act(browser, "release 2.0.1 is deployed", "Retry 180 messages").await;
    browser.sees("180 of 180 messages retried").await;
}

async fn a_strange_message_is_edited(browser: &Browser) {
    follow(browser, "journeys: 1 message is held as undecodable").await;
    browser.click(FIRST).await;
    browser.sees(STRANGE).await;
    browser.sees("invalid type").await;
    browser.fill("//textarea", &format!("{{\"id\":{STRANGE_JOURNEY}}}")).await;
    act(browser, "the mainframe writes words", "Retry with this body").await;
    browser.sees("the mainframe writes words").await;
}

async fn a_paused_instance_goes_on(browser: &Browser) {
    follow(browser, "journey: 1 instance in Waiting is paused").await;
    browser.click("//table[caption='Instances']//a[.='1']").await;
    browser.sees("Paused. It waits until somebody deals with message").await;
    browser.click("//p[contains(., 'Paused.')]//a").await;
    browser.sees("poisoned by order").await;
    act(browser, "the client closed it again", "Discard").await;
    browser.sees("1 of 1 message discarded").await;
}

async fn an_open_breaker_closes(browser: &Browser, night: &Night) {
    follow(browser, "keeps failing for").await;
    browser.sees(MAIL_AWAY).await;
    assert_eq!(browser.count("//tbody//tr").await, 12);
    browser.click("//nav//a[.='Processes']").await;
    browser.sees("is open for").await;
    night.mailer.is_wrong(false);
    for left in (1..=12).rev() {
        eventually(&format!("{left} rows to be left"), || async {
            browser.go("/outbox?endpoint=mail&kind=retry").await;
            (browser.count("//tbody//tr").await == left).then_some(())
        })
        .await;
        browser.click(FIRST).await;
        act(browser, "the mail server is back", "Send it now").await;
        browser.sees("the mail server is back").await;
    }
}

async fn an_instance_that_waits_since_yesterday_ends(browser: &Browser) {
    browser.go("/").await;
    browser.sees("Has waited for more than a day: 1").await;
    browser.click(&trouble("journey: an instance in Waiting has not changed for 1 d 2 h")).await;
    browser.click("//table[caption='Instances']//a[.='2']").await;
    browser.sees("It waits for client.Closed").await;
    browser.click("//summary[.='Give it a message']").await;
    browser.click("//details[@id='send']//option[.='client.Closed']").await;
    browser.fill("//textarea", r#"{"id":2}"#).await;
    browser.fill("//details[@id='send']//input[@name='reason']", "they closed it by phone").await;
    browser.click("//details[@id='send']//button").await;
    browser.sees("they closed it by phone").await;
}

async fn a_queue_is_back(browser: &Browser) {
    follow(browser, "journeys: no queue takes 3 messages to warehouse").await;
    browser.click(FIRST).await;
    browser.sees("No queue takes what goes to warehouse.").await;
    act(browser, "the warehouse is back", "Send it now").await;
    browser.sees("the warehouse is back").await;
}
