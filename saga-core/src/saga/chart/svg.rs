//! The chart as a drawing.

use super::{
    Chart, ChartEdge, ChartState,
    layout::{Layout, Link, Node, Point, Route, layout},
    short,
};
use crate::MessageKind;
use std::{
    collections::{HashMap, HashSet},
    fmt,
};

/// The height of a line of text, by its kind.
const NAME: f64 = 20.0;
const MESSAGE: f64 = 17.0;
const EFFECT: f64 = 15.0;
const MARGIN: f64 = 28.0;
/// What follows the system, and how a page may override it, is said at [`Drawing`].
const STYLE: &str = "\
.sagabus-chart{color:#1b2430;font-family:ui-sans-serif,system-ui,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
.sagabus-chart .ground{fill:#fff}
.sagabus-chart text{fill:currentColor;font-size:13px}
.sagabus-chart .name{font-size:14px;font-weight:600;text-anchor:middle}
.sagabus-chart .message{font-weight:500}
.sagabus-chart .branch{font-weight:400;font-style:italic;opacity:.75}
.sagabus-chart .effect{font-size:11.5px;opacity:.66}
.sagabus-chart .box{fill:currentColor;fill-opacity:.045;stroke:currentColor;stroke-opacity:.55;stroke-width:1.25}
.sagabus-chart .inner,.sagabus-chart .rule{fill:none;stroke:currentColor;stroke-opacity:.35}
.sagabus-chart .done .box{fill:#1a9c5b;fill-opacity:.09;stroke:#1a9c5b;stroke-opacity:.9}
.sagabus-chart .done .inner{stroke:#1a9c5b;stroke-opacity:.55}
.sagabus-chart .legacy .box{stroke-dasharray:4 4}
.sagabus-chart .line{fill:none;stroke:currentColor;stroke-opacity:.42;stroke-width:1.4}
.sagabus-chart .head{fill:currentColor;fill-opacity:.6}
.sagabus-chart .start{fill:currentColor}
.sagabus-chart .glyph{fill:none;stroke:#c77700;stroke-width:1.4;stroke-linecap:round}
.sagabus-chart .taken .line,.sagabus-chart .taken .box{stroke:#2f6fed;stroke-opacity:1;stroke-width:2.2}
.sagabus-chart .taken .head,.sagabus-chart text.taken{fill:#2f6fed;fill-opacity:1}
.sagabus-chart .current .box{fill:#2f6fed;fill-opacity:.18}
.sagabus-chart .count rect{fill:#2f6fed}
.sagabus-chart .count text{fill:#fff;font-size:11.5px;font-weight:600;text-anchor:middle}
@media (prefers-color-scheme:dark){.sagabus-chart{color:#e4e8ee}.sagabus-chart .ground{fill:#12171e}
.sagabus-chart .glyph{stroke:#f0a63a}
.sagabus-chart .taken .line,.sagabus-chart .taken .box{stroke:#78a5ff}
.sagabus-chart .taken .head,.sagabus-chart text.taken{fill:#78a5ff}}
";

/// A chart as SVG: a state is a box, with what it does without leaving it; a done state has a green, double edge, one
/// of old instances alone a dashed one. A line is labelled with the messages that lead along it, their branches in
/// brackets, and with what goes out. A clock marks a message that is a timer, two bars a state that waits without one
/// on purpose.
///
/// It follows the reader's light or dark scheme. On a page, `.sagabus-chart { color: .. }` and
/// `.sagabus-chart .ground { fill: none }` fit it to the page; each state is a group with its name in `data-state`.
///
/// ```
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/saga/example.rs"));
/// # #[saga(name = "parcel", id = id: u64)]
/// # impl Parcel {
/// #     fn packed(packed: ParcelPacked) -> Travelling { Travelling { id: packed.id, scans: 0 } }
/// #     fn scanned(_: Travelling, _: Scanned) -> Arrived { Arrived }
/// # }
/// # fn main() {
/// let chart = Parcel::chart();
/// let packed = (None, "shop.ParcelPacked", "Travelling"); // as the journal of an instance has it
/// let svg = chart.drawing().path([packed]).counts([("Travelling", 17)]).to_string();
/// assert!(svg.starts_with("<svg") && svg.contains(">17<"));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Drawing<'a> {
    chart: &'a Chart,
    edges: Vec<&'a ChartEdge>,
    /// State left (empty for a start), message, state entered.
    taken: HashSet<(&'a str, String, &'a str)>,
    visited: HashSet<&'a str>,
    current: Option<&'a str>,
    counts: HashMap<&'a str, u64>,
}

impl<'a> Drawing<'a> {
    pub(super) fn new(chart: &'a Chart) -> Self {
        let (taken, visited, counts) = (HashSet::new(), HashSet::new(), HashMap::new());
        Self { chart, edges: chart.edges_that_happen(), taken, visited, current: None, counts }
    }

    /// Marks the way of an instance: its transitions in order, each the state left (none at the start), the message's
    /// logical name, and the state entered. The last state is marked as the current one. Former names of states are
    /// known; what the chart does not have is left out.
    pub fn path<'p>(mut self, transitions: impl IntoIterator<Item = (Option<&'p str>, &'p str, &'p str)>) -> Self {
        for (from, on, to) in transitions {
            let from = match from.map(|from| self.state(from)) {
                None => "",
                Some(Some(from)) => from,
                Some(None) => continue,
            };
            let Some(to) = self.state(to) else { continue };
            self.visited.extend([from, to]);
            self.taken.insert((from, on.to_owned(), to));
            self.current = Some(to);
        }
        self
    }

    /// Shows how many instances are in each state; one without a number shows none.
    pub fn counts<'p>(mut self, counts: impl IntoIterator<Item = (&'p str, u64)>) -> Self {
        for (state, count) in counts {
            if let Some(state) = self.state(state) {
                *self.counts.entry(state).or_default() += count;
            }
        }
        self
    }

    /// The present name of a state.
    fn state(&self, name: &str) -> Option<&'a str> {
        self.chart.state(name).map(|state| state.name.as_str())
    }

    fn is_taken(&self, edge: &ChartEdge) -> bool {
        let on = |(from, on, to): &(&str, String, &str)| *from == edge.from && *on == edge.on && *to == edge.to;
        self.taken.iter().any(on)
    }

    /// The message that an edge waits for, and below it what goes out.
    fn lines(&self, edge: &ChartEdge) -> Vec<Line> {
        let is = |kind| self.chart.messages.iter().any(|message| message.type_name == edge.on && message.kind == kind);
        let timer = is(MessageKind::Timer);
        let branch = if edge.branch.is_empty() { String::new() } else { format!("[{}]", edge.branch) };
        let head = Line { text: short(&edge.on).into(), branch, timer, taken: self.is_taken(edge), effect: false };
        let effects = edge.effects.iter().map(|effect| Line {
            text: format!("{} {}", effect.kind, short(&effect.type_name)),
            branch: String::new(),
            timer: false,
            taken: false,
            effect: true,
        });
        std::iter::once(head).chain(effects).collect()
    }
}

/// A line of a label.
struct Line {
    text: String,
    branch: String,
    timer: bool,
    taken: bool,
    effect: bool,
}

impl Line {
    fn width(&self) -> f64 {
        let size = if self.effect { 11.5 } else { 13.0 };
        let branch = if self.branch.is_empty() { 0.0 } else { 6.0 + width(&self.branch, 13.0) };
        self.indent() + width(&self.text, size) + branch
    }

    fn height(&self) -> f64 {
        if self.effect { EFFECT } else { MESSAGE }
    }

    fn indent(&self) -> f64 {
        if self.timer { 17.0 } else { 0.0 }
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>, x: f64, y: f64) -> fmt::Result {
        if self.timer {
            // a clock
            let (cx, cy) = (x + 6.0, y + 8.5);
            write!(f, "<g class=\"glyph\"><circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"5.3\"/>")?;
            writeln!(f, "<path d=\"M{cx:.1} {:.1}v3l2 1.4\"/></g>", cy - 3.0)?;
        }
        let class = match (self.effect, self.taken) {
            (true, _) => "effect",
            (false, true) => "message taken",
            (false, false) => "message",
        };
        let (x, y) = (x + self.indent(), y + if self.effect { 11.0 } else { 13.0 });
        write!(f, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}", Escaped(&self.text))?;
        if !self.branch.is_empty() {
            write!(f, " <tspan class=\"branch\">{}</tspan>", Escaped(&self.branch))?;
        }
        writeln!(f, "</text>")
    }
}

fn size(lines: &[Line]) -> (f64, f64) {
    let widest = lines.iter().map(Line::width).fold(0.0, f64::max);
    let gaps = lines.windows(2).filter(|pair| ends(pair)).count() as f64;
    (widest, lines.iter().map(Line::height).sum::<f64>() + gaps * 4.0)
}

fn draw(lines: &[Line], f: &mut fmt::Formatter<'_>, x: f64, mut y: f64) -> fmt::Result {
    for (n, line) in lines.iter().enumerate() {
        line.draw(f, x, y)?;
        y += line.height() + if lines[n..].get(..2).is_some_and(ends) { 4.0 } else { 0.0 };
    }
    Ok(())
}

/// Whether the effects of a message end here, and another message follows.
fn ends(pair: &[Line]) -> bool {
    pair[0].effect && !pair[1].effect
}

/// A box of the drawing.
struct StateBox<'a> {
    state: &'a ChartState,
    /// What it does without leaving it.
    inside: Vec<Line>,
    width: f64,
    height: f64,
}

/// All that leads from one state to another.
struct Way<'a> {
    edges: Vec<&'a ChartEdge>,
    lines: Vec<Line>,
}

impl<'a> Drawing<'a> {
    fn boxes(&self) -> Vec<StateBox<'a>> {
        let of = |state: &'a ChartState| {
            let own = self.edges.iter().filter(|edge| edge.from == state.name && edge.to == state.name);
            let inside: Vec<Line> = own.flat_map(|edge| self.lines(edge)).collect();
            let (widest, height) = size(&inside);
            let sign = if state.waits { 18.0 } else { 0.0 };
            let name = width(&state.name, 14.8) + 36.0 + 2.0 * sign;
            let inner = if inside.is_empty() { 0.0 } else { height + 12.0 };
            StateBox { state, inside, width: name.max(widest + 28.0), height: NAME + 18.0 + inner }
        };
        self.chart.states.iter().map(of).collect()
    }

    /// Edges between the same two states share a line.
    fn ways(&self) -> Vec<Way<'a>> {
        let mut ways: Vec<Way<'a>> = Vec::new();
        for &edge in self.edges.iter().filter(|edge| edge.from != edge.to) {
            let lines = self.lines(edge);
            match ways.iter_mut().find(|way| way.edges[0].from == edge.from && way.edges[0].to == edge.to) {
                Some(way) => {
                    way.edges.push(edge);
                    way.lines.extend(lines);
                }
                None => ways.push(Way { edges: vec![edge], lines }),
            }
        }
        ways
    }

    fn draw_way(&self, f: &mut fmt::Formatter<'_>, way: &Way<'_>, route: &Route) -> fmt::Result {
        let class = if way.edges.iter().any(|edge| self.is_taken(edge)) { "way taken" } else { "way" };
        let Route { points, label } = route;
        write!(f, "<g class=\"{class}\"><path class=\"line\" d=\"M{:.1} {:.1}", points[0].x, points[0].y)?;
        for (n, pair) in points.windows(2).enumerate() {
            let [Point { x: x1, y: y1 }, Point { x, y }] = [pair[0], pair[1]];
            if n % 2 == 0 || x1 == x {
                write!(f, "L{x:.1} {y:.1}")?;
            } else {
                let bend = (y - y1) * 0.5;
                write!(f, "C{x1:.1} {:.1} {x:.1} {:.1} {x:.1} {y:.1}", y1 + bend, y - bend)?;
            }
        }
        let Point { x, y } = points[points.len() - 1];
        let back = if points[points.len() - 2].y < y { -7.5 } else { 7.5 };
        writeln!(f, "\"/><path class=\"head\" d=\"M{x:.1} {y:.1}l-4.2 {back:.1}h8.4z\"/>")?;
        draw(&way.lines, f, label.x + 10.0, label.y)?;
        writeln!(f, "</g>")
    }

    fn draw_box(&self, f: &mut fmt::Formatter<'_>, it: &StateBox<'_>, at: Point) -> fmt::Result {
        let StateBox { state, inside, width: w, height: h } = it;
        let name = state.name.as_str();
        let marks = [
            ("done", state.done),
            ("legacy", state.legacy),
            ("taken", self.visited.contains(name)),
            ("current", self.current == Some(name)),
        ];
        let marks: String = marks.iter().filter(|(_, is)| *is).map(|(mark, _)| format!(" {mark}")).collect();
        let (x, y) = (at.x - w / 2.0, at.y);
        write!(f, "<g class=\"state{marks}\" data-state=\"{}\">", Escaped(name))?;
        write!(f, "<rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"9\"/>")?;
        if state.done {
            let (x, y, w, h) = (x + 3.5, y + 3.5, w - 7.0, h - 7.0);
            write!(f, "<rect class=\"inner\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"6\"/>")?;
        }
        writeln!(f, "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>", at.x, y + 24.0, Escaped(name))?;
        if state.waits {
            let (x, y) = (x + w - 19.0, y + 14.0);
            write!(f, "<path class=\"glyph\" d=\"M{x:.1} {y:.1}v10m5 -10v10\"><title>waits without a timer</title>")?;
            writeln!(f, "</path>")?;
        }
        if !inside.is_empty() {
            let right = x + w - 1.0;
            writeln!(f, "<path class=\"rule\" d=\"M{:.1} {:.1}H{right:.1}\"/>", x + 1.0, y + 37.0)?;
            draw(inside, f, x + 14.0, y + 42.0)?;
        }
        if let Some(count) = self.counts.get(name) {
            let text = count.to_string();
            let wide = width(&text, 11.5) + 14.0;
            let (left, top) = (x + w - wide + 8.0, y - 9.0);
            write!(
                f,
                "<g class=\"count\"><rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"18\" rx=\"9\"/>"
            )?;
            writeln!(f, "<text x=\"{:.1}\" y=\"{:.1}\">{text}</text></g>", left + wide / 2.0, top + 13.0)?;
        }
        writeln!(f, "</g>")
    }
}

impl fmt::Display for Drawing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (boxes, ways) = (self.boxes(), self.ways());
        let start = Node { width: 14.0, height: 14.0 };
        let sizes = boxes.iter().map(|it| Node { width: it.width, height: it.height });
        let nodes: Vec<Node> = std::iter::once(start).chain(sizes).collect();
        let number = |name: &str| boxes.iter().position(|it| it.state.name == name).map_or(0, |n| n + 1);
        let links = ways.iter().map(|way| {
            let (width, height) = size(&way.lines);
            Link { from: number(&way.edges[0].from), to: number(&way.edges[0].to), width: width + 10.0, height }
        });
        let Layout { width, height, nodes, links } = layout(&nodes, &links.collect::<Vec<_>>());
        let (w, h) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
        let saga = Escaped(&self.chart.saga);
        write!(f, "<svg class=\"sagabus-chart\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" ")?;
        writeln!(f, "viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" height=\"{h:.0}\">")?;
        writeln!(f, "<title>The states of {saga}, version {}</title>", self.chart.version)?;
        writeln!(f, "<style>{STYLE}</style>")?;
        writeln!(f, "<rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"12\"/>")?;
        writeln!(f, "<g transform=\"translate({MARGIN:.0} {MARGIN:.0})\">")?;
        writeln!(f, "<circle class=\"start\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"7\"/>", nodes[0].x, nodes[0].y + 7.0)?;
        // what was taken lies above the rest
        let mut order: Vec<usize> = (0..ways.len()).collect();
        order.sort_by_key(|&n| ways[n].edges.iter().any(|edge| self.is_taken(edge)));
        for n in order {
            self.draw_way(f, &ways[n], &links[n])?;
        }
        for (it, at) in boxes.iter().zip(&nodes[1..]) {
            self.draw_box(f, it, *at)?;
        }
        writeln!(f, "</g>\n</svg>")
    }
}

/// About how wide a text is in the common fonts; a little more rather than less.
fn width(text: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | '\'' | '|' | '!' | ':' => 0.29,
        'f' | 't' | 'r' | ' ' | '-' | '[' | ']' | '(' | ')' => 0.38,
        'm' | 'w' | 'M' | 'W' => 0.88,
        'A'..='Z' => 0.68,
        c if c.is_ascii() => 0.57,
        _ => 1.0,
    };
    text.chars().map(of).sum::<f64>() * size
}

/// Text that cannot end an element or an attribute. Characters that XML does not have are left out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => Ok(()),
            c => f.write_char(c),
        })
    }
}
