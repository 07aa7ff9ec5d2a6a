//! The frame of a page, and what all pages are made of. maud escapes every text.

use super::{
    access::Visitor,
    app::{App, Away},
    params::{Params, encoded},
    sql::Sql,
};
use crate::text::{self, plain};
use axum::{
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use saga_core::{Chart, Counted};
use std::sync::{Arc, OnceLock};

/// The pages, as the navigation shows them.
const PAGES: [(&str, &str); 8] = [
    ("/", "Home"),
    ("/sagas", "Sagas"),
    ("/held", "Held"),
    ("/outbox", "Outbox"),
    ("/timers", "Timers"),
    ("/processes", "Processes"),
    ("/versions", "Versions"),
    ("/operations", "Operations"),
];

/// What a page knows of its request.
pub(super) struct Cx {
    pub(super) app: Arc<App>,
    pub(super) visitor: Visitor,
    pub(super) params: Params,
    /// When the page was made: microseconds since 1970.
    pub(super) now_us: i64,
}

impl FromRequestParts<Arc<App>> for Cx {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let Some(visitor) = parts.extensions.get::<Visitor>().cloned() else {
            return Err(refusal(app, StatusCode::NOT_FOUND, "there is no such page")); // the guard let somebody else in
        };
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let params = query.map(|query| Params::of(query.0)).unwrap_or_default();
        Ok(Self { app: app.clone(), visitor, params, now_us: Timestamp::now().as_microsecond() })
    }
}

/// Fields that programs mark with `#[masked]`.
impl Cx {
    /// Whether this page shows them: to an operator who asks for it.
    pub(super) fn unmasked(&self) -> bool {
        self.visitor.may_act() && self.params.get(UNMASKED).is_some()
    }

    /// The fields that this page hides of those that are masked.
    pub(super) fn hidden(&self, masked: Vec<String>) -> Vec<String> {
        if self.unmasked() { Vec::new() } else { masked }
    }

    /// What says that fields are hidden, with a link to the same page that shows them.
    pub(super) fn masks(&self, hidden: &[String]) -> Markup {
        html! {
            @if !hidden.is_empty() { p.muted {
                "Masked: " (plain(&hidden.join(", "))) ". "
                @if self.visitor.may_act() { a href=(self.params.with_set(UNMASKED).href("")) { "Show them" } }
            } }
        }
    }
}

/// The parameter of a page that shows masked fields.
const UNMASKED: &str = "unmasked";

/// What is said about a page before its body.
pub(super) struct Head<'a> {
    pub(super) title: &'a str,
    /// The page in the navigation that it belongs to.
    pub(super) part: &'a str,
    /// The command that shows the same.
    pub(super) command: String,
    /// The query that gives the same.
    pub(super) sql: Sql,
    pub(super) away: &'a [Away],
}

impl Cx {
    /// A whole page.
    pub(super) fn page(&self, head: &Head<'_>, body: Markup) -> Response {
        let shown = html! {
            div.title {
                h1 { (head.title) }
                p.asof { "as of " time #as-of datetime=(iso(self.now_us)) { (self.clock(self.now_us)) } }
            }
            @for away in head.away {
                p.banner.bad role="alert" {
                    strong { (away.name) " is unreachable. " }
                    "What is in it is not shown. " span.error { (text::plain(&away.error)) }
                }
            }
            (body)
            @if !head.command.is_empty() {
                p.command { span { "The same in a terminal" } code { (head.command) } }
            }
            (head.sql.shown(self.app.has(false), self.app.has(true)))
        };
        frame(&self.app, Some(&self.visitor), head.title, head.part, shown).into_response()
    }

    /// An address of the dashboard.
    pub(super) fn url(&self, path: &str) -> String {
        self.app.url(path)
    }

    /// The time of a day.
    pub(super) fn clock(&self, us: i64) -> String {
        let at = Timestamp::from_microsecond(us).unwrap_or_default();
        at.to_zoned(self.app.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    /// How long ago, with the exact time behind it.
    pub(super) fn when(&self, us: i64) -> Markup {
        html! {
            time datetime=(iso(us)) title=(text::time(us, &self.app.zone)) { (text::distance(us, self.now_us)) }
        }
    }

    /// A time, and how long ago.
    pub(super) fn at(&self, us: i64) -> Markup {
        let distance = text::distance(us, self.now_us);
        html! { time datetime=(iso(us)) { (text::time(us, &self.app.zone)) } " (" (distance) ")" }
    }

    /// A link to an instance.
    pub(super) fn instance(&self, saga: &str, id: &str) -> Markup {
        let href = self.url(&format!("/sagas/{}/{}", encoded(saga), encoded(id)));
        html! { a.id href=(href) { (plain(id)) } }
    }

    /// A link to a held message.
    pub(super) fn message(&self, id: &str) -> Markup {
        html! { a.id href=(self.url(&format!("/held/{}", encoded(id)))) { (plain(id)) } }
    }

    /// A link to what an id came from and what it caused.
    pub(super) fn conversation(&self, id: &str) -> Markup {
        html! { a.id href=(self.url(&format!("/conversations/{}", encoded(id)))) { (plain(id)) } }
    }

    /// A table with the row's database in the first column, if there are several.
    pub(super) fn rows(
        &self,
        caption: &str,
        head: &[&str],
        rows: impl IntoIterator<Item = (usize, Vec<Markup>)>,
    ) -> Markup {
        let several = self.app.label(0).is_some();
        let head: Vec<&str> = several.then_some("database").into_iter().chain(head.iter().copied()).collect();
        let cells = |(n, cells): (usize, Vec<Markup>)| {
            let label = self.app.label(n).map(|label| html! { (label) });
            label.into_iter().chain(cells).collect()
        };
        table(caption, &head, rows.into_iter().map(cells))
    }

    /// How many rows there are, and a way to more of them.
    pub(super) fn shown(&self, path: &str, shown: usize, all: Counted) -> Markup {
        html! {
            p.shown {
                @if (shown as u64) < all.rows || all.more {
                    (shown) " of " (all.to_string()) " shown. "
                    @match self.params.more() {
                        Some(more) => { a href=(more.href(&self.url(path))) { "Show more" } }
                        None => { "Narrow the filter to see others." }
                    }
                } @else { (shown) " shown." }
            }
        }
    }

    /// What stands for an empty list: `none`, if that is the whole truth. Nobody knows what is in databases that did
    /// not answer, or among `all` beyond those that were looked at.
    pub(super) fn none(&self, none: &str, all: Counted, away: &[Away]) -> Markup {
        let told = match away {
            [] if all.more => {
                "Nothing that was looked at matches, but there is more: name a type, a reason, a saga or an endpoint."
            }
            [] => none,
            _ => "Nothing that could be read matches.",
        };
        html! { p.calm { (told) } }
    }

    /// The field that every form needs.
    pub(super) fn csrf(&self) -> Markup {
        html! { input type="hidden" name="csrf" value=(self.visitor.csrf); }
    }

    /// The field for why something is done: nothing is done without.
    pub(super) fn reason(&self, id: &str) -> Markup {
        html! {
            label for=(id) { "Why? It is recorded with your name, " (self.visitor.name) "." }
            input id=(id) name="reason" required maxlength="500" autocomplete="off";
        }
    }

    /// A field of a list's filter, with the value that the page has.
    pub(super) fn filter_text(&self, name: &str, label: &str) -> Markup {
        text_field(&format!("f-{name}"), name, label, self.params.get(name))
    }

    /// One that may be given several times: a field for each value, and one more.
    pub(super) fn filter_texts(&self, name: &str, label: &str) -> Markup {
        let values = self.params.all(name).iter().map(|value| Some(value.as_str())).chain([None]);
        html! {
            @for (k, value) in values.enumerate() {
                @if k == 0 { (text_field(&format!("f-{name}"), name, label, value)) }
                @else { (text_field(&format!("f-{name}-{k}"), name, "and", value)) }
            }
        }
    }

    /// A filter that is on or off.
    pub(super) fn filter_check(&self, name: &str, label: &str) -> Markup {
        let (id, is_set) = (format!("f-{name}"), self.params.is_set(name));
        html! {
            div.check {
                input id=(id) type="checkbox" name=(name) value="yes" checked[is_set];
                label for=(id) { (label) }
            }
        }
    }

    /// The end of a filter's form.
    pub(super) fn filter_buttons(&self, path: &str) -> Markup {
        html! { div.buttons { button { "Filter" } a.button.quiet href=(self.url(path)) { "Reset" } } }
    }

    /// A drawing of a saga. Its style is in the style sheet, because the policy allows no other.
    pub(super) fn chart(&self, drawing: &saga_core::Drawing<'_>, label: &str) -> Markup {
        let svg = drawing.to_string();
        let bare = match (svg.find("<style>"), svg.find("</style>")) {
            (Some(start), Some(end)) => format!("{}{}", &svg[..start], &svg[end + "</style>".len()..]),
            _ => svg,
        };
        // the drawing escapes every text of the chart itself
        html! { div.scroll.chart role="region" aria-label=(label) tabindex="0" { (PreEscaped(bare)) } }
    }
}

fn text_field(id: &str, name: &str, label: &str, value: Option<&str>) -> Markup {
    html! {
        div {
            label for=(id) { (label) }
            input id=(id) name=(name) value=[value] maxlength="300" autocomplete="off";
        }
    }
}

/// The style of drawings.
pub(super) fn chart_style() -> &'static str {
    static STYLE: OnceLock<String> = OnceLock::new();
    STYLE.get_or_init(|| {
        let chart = r#"{"saga":"s","version":1,"states":[{"name":"A","done":true}],"messages":[],
            "edges":[{"from":"","on":"m","branch":"","to":"A","effects":[]}]}"#;
        let svg = serde_json::from_str::<Chart>(chart).map(|chart| chart.to_svg()).unwrap_or_default();
        let style = svg.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next());
        style.unwrap_or_default().to_owned()
    })
}

fn frame(app: &App, visitor: Option<&Visitor>, title: &str, part: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" data-path=(app.path) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · sagabus" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(app.url("/assets/style.css"));
                @if visitor.is_some() { script src=(app.url("/assets/live.js")) defer {} }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    div.bar {
                        a.brand href=(app.url("/")) { "sagabus" }
                        @if let Some(visitor) = visitor { (navigation(app, part)) (corner(app, visitor)) }
                    }
                }
                main #main tabindex="-1" { (body) }
                p #said.unseen aria-live="polite" {}
            }
        }
    }
}

fn navigation(app: &App, part: &str) -> Markup {
    html! {
        nav aria-label="Pages" {
            ul {
                @for (path, name) in PAGES {
                    li { a href=(app.url(path)) aria-current=[(part == path).then_some("page")] { (name) } }
                }
            }
        }
        form.search role="search" action=(app.url("/search")) {
            label.unseen for="q" { "Find any id" }
            input #q type="search" name="q" placeholder="Find any id" maxlength="300" autocomplete="off"
                spellcheck="false";
        }
    }
}

fn corner(app: &App, visitor: &Visitor) -> Markup {
    html! {
        div.corner {
            button #live type="button" hidden aria-pressed="true" { "Live" }
            span.who { (visitor.name) @if !visitor.may_act() { " (viewer)" } }
            @if visitor.logged_in {
                form method="post" action=(app.url("/logout")) {
                    input type="hidden" name="csrf" value=(visitor.csrf);
                    button.quiet { "Log out" }
                }
            }
        }
    }
}

/// A page for somebody who has not come in.
pub(super) fn outside(app: &App, status: StatusCode, title: &str, body: Markup) -> Response {
    (status, frame(app, None, title, "", html! { h1 { (title) } (body) })).into_response()
}

/// Why a request is not answered.
pub(super) fn refusal(app: &App, status: StatusCode, text: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Refused");
    outside(app, status, title, html! { p { (text) } p { a href=(app.url("/")) { "To the dashboard" } } })
}

pub(super) async fn no_such_page(State(app): State<Arc<App>>) -> Response {
    refusal(&app, StatusCode::NOT_FOUND, "there is no such page")
}

/// A table that scrolls, or becomes cards where there is little room.
pub(super) fn table(caption: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<Markup>>) -> Markup {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return html! {};
    }
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table role="table" {
                caption { (caption) }
                thead role="rowgroup" {
                    tr role="row" { @for name in head { th role="columnheader" scope="col" { (name) } } }
                }
                tbody role="rowgroup" {
                    @for cells in rows {
                        tr role="row" {
                            @for (cell, name) in cells.iter().zip(head) {
                                td role="cell" data-label=(name) { div { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A foreign text in a cell, shortened.
pub(super) fn cell(text: &str) -> Markup {
    html! { (text::short(text)) }
}

/// A foreign text of several lines.
pub(super) fn lines(text: &str) -> Markup {
    let lines: Vec<String> = text.lines().map(plain).collect();
    html! { pre { (lines.join("\n")) } }
}

/// A word with a colour, which says nothing that the word does not.
pub(super) fn tag(word: &str, kind: &str) -> Markup {
    html! { span class=(format!("tag {kind}")) { (plain(word)) } }
}

fn iso(us: i64) -> String {
    Timestamp::from_microsecond(us).unwrap_or_default().to_string()
}
