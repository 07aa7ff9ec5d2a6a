//! Where the boxes and links of a drawing stand: in layers, from the top to the bottom.
//!
//! The steps are those of every layered layout: links against the flow are turned round; each box gets a layer below
//! all that lead to it; a link is a chain of points, one in each layer between, and its label hangs at one of them;
//! the points of a layer are sorted so that few links cross, then moved until links are as straight as their
//! neighbours allow. The result depends on nothing but the arguments, and on every machine alike.

use std::cmp::Ordering;

/// The least space between neighbours in a layer.
const GAP: f64 = 26.0;
/// The least space between two layers: a link bends there.
const LAYER_GAP: f64 = 30.0;
/// How far a point of a link reaches to its sides.
const POINT: f64 = 4.0;
/// Less than this to the side is not worth a bend; less than half a gap, so that nothing meets.
const BEND: f64 = 11.0;
/// More than this gains nothing that a person sees.
const SWEEPS: usize = 24;

/// A box, by its size.
pub(super) struct Node {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A link between two boxes, by their numbers, with the size of its label.
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Where everything is.
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// The middle of each box's upper side.
    pub(super) nodes: Vec<Point>,
    pub(super) links: Vec<Route>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
}

/// The way of a link, which passes through its points up or down: straight from the first to the second, bent from the
/// second to the third, and so on in turn.
pub(super) struct Route {
    pub(super) points: Vec<Point>,
    /// The upper end of the line that the label stands beside, to the right.
    pub(super) label: Point,
}

/// A box, or a point of a link.
struct Place {
    layer: usize,
    /// How far it reaches to the left and right of its line, and down.
    left: f64,
    right: f64,
    height: f64,
    x: f64,
    /// Neighbours in the layer above and below.
    above: Vec<usize>,
    below: Vec<usize>,
    /// How much it wants to stand where it is straight.
    weight: f64,
}

impl Place {
    fn neighbours(&self, up: bool) -> &[usize] {
        if up { &self.above } else { &self.below }
    }
}

/// Places boxes and links. The flow begins at the box number 0.
pub(super) fn layout(nodes: &[Node], links: &[Link]) -> Layout {
    let turned = against_the_flow(nodes.len(), links);
    let ends = |n: usize| if turned[n] { (links[n].to, links[n].from) } else { (links[n].from, links[n].to) };
    let layers = layers(nodes.len(), &(0..links.len()).map(ends).collect::<Vec<_>>());
    let place = |(node, layer): (&Node, &usize)| {
        let half = node.width / 2.0;
        Place { layer: *layer, left: half, right: half, ..Place::point(node.height, 1.0) }
    };
    let mut places: Vec<Place> = nodes.iter().zip(&layers).map(place).collect();
    let chains: Vec<Vec<usize>> = (0..links.len()).map(|n| chain(&mut places, ends(n), &links[n], turned[n])).collect();
    let mut rows = rows(&places);
    untangle(&mut places, &mut rows);
    straighten(&mut places, &rows);
    for chain in &chains {
        align(&mut places, &rows, chain);
    }
    let tops = tops(&places, &rows);
    finish(nodes, links, &places, &rows, &tops, &chains, &turned)
}

impl Place {
    fn point(height: f64, weight: f64) -> Self {
        let (above, below) = (Vec::new(), Vec::new());
        Self { layer: 0, left: POINT, right: POINT, height, x: 0.0, above, below, weight }
    }
}

/// Which links lead back to a box that the flow has passed.
fn against_the_flow(nodes: usize, links: &[Link]) -> Vec<bool> {
    let mut turned = vec![false; links.len()];
    let (mut entered, mut left) = (vec![false; nodes], vec![false; nodes]);
    for first in 0..nodes {
        let mut path = if entered[first] { Vec::new() } else { vec![(first, 0)] };
        entered[first] = true;
        while let Some((node, next)) = path.pop() {
            let Some(n) = (next..links.len()).find(|&n| links[n].from == node) else {
                left[node] = true;
                continue;
            };
            path.push((node, n + 1));
            let to = links[n].to;
            if !entered[to] {
                entered[to] = true;
                path.push((to, 0));
            } else if !left[to] {
                turned[n] = true;
            }
        }
    }
    turned
}

/// The layer of each box: boxes have even ones, so that a label has one between. Longest ways, then every box without
/// a way in stands right above what it leads to.
fn layers(nodes: usize, ends: &[(usize, usize)]) -> Vec<usize> {
    let mut layers = vec![0; nodes];
    for _ in 0..nodes {
        for &(from, to) in ends {
            layers[to] = layers[to].max(layers[from] + 2);
        }
    }
    for node in (0..nodes).filter(|node| ends.iter().all(|(_, to)| to != node)) {
        let below = ends.iter().filter(|(from, _)| *from == node).map(|(_, to)| layers[*to]).min();
        layers[node] = below.map_or(layers[node], |below| below - 2);
    }
    layers
}

/// The points of a link from its upper to its lower box, which are first and last. The label hangs near the box that
/// the link leaves.
fn chain(places: &mut Vec<Place>, (upper, lower): (usize, usize), link: &Link, turned: bool) -> Vec<usize> {
    let (first, last) = (places[upper].layer + 1, places[lower].layer);
    let label = if turned { last - 1 } else { first };
    let mut chain = vec![upper];
    for layer in first..last {
        let point = Place { layer, ..Place::point(0.0, 6.0) };
        places.push(if layer == label {
            Place { right: POINT + link.width, height: link.height, weight: 3.0, ..point }
        } else {
            point
        });
        chain.push(places.len() - 1);
    }
    chain.push(lower);
    for pair in chain.windows(2) {
        places[pair[0]].below.push(pair[1]);
        places[pair[1]].above.push(pair[0]);
    }
    chain
}

/// The places of each layer, in the order in which the flow reaches them.
fn rows(places: &[Place]) -> Vec<Vec<usize>> {
    let depth = places.iter().map(|place| place.layer + 1).max().unwrap_or_default();
    let mut rows = vec![Vec::new(); depth];
    let mut seen = vec![false; places.len()];
    for first in 0..places.len() {
        let mut open = vec![first];
        while let Some(place) = open.pop() {
            if !std::mem::replace(&mut seen[place], true) {
                rows[places[place].layer].push(place);
                open.extend(places[place].below.iter().rev());
            }
        }
    }
    rows
}

/// Sorts each layer by the middle of the neighbours above, then below, in turn, and keeps the best order seen.
fn untangle(places: &mut [Place], rows: &mut Vec<Vec<usize>>) {
    let mut best = (crossings(places, rows), rows.clone());
    for sweep in 0..SWEEPS {
        let up = sweep % 2 == 0;
        let depth = rows.len();
        for step in 1..depth {
            let at = if up { step } else { depth - 1 - step };
            number(places, rows);
            let mut keyed: Vec<(f64, usize)> = rows[at]
                .iter()
                .map(|&it| (middle(places, places[it].neighbours(up)).unwrap_or(places[it].x), it))
                .collect();
            keyed.sort_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
            rows[at] = keyed.into_iter().map(|(_, it)| it).collect();
        }
        swap_neighbours(places, rows);
        let count = crossings(places, rows);
        if count < best.0 {
            best = (count, rows.clone());
        }
    }
    *rows = best.1;
}

fn number(places: &mut [Place], rows: &[Vec<usize>]) {
    for row in rows {
        row.iter().enumerate().for_each(|(n, &it)| places[it].x = n as f64);
    }
}

fn middle(places: &[Place], neighbours: &[usize]) -> Option<f64> {
    let sum: f64 = neighbours.iter().map(|&it| places[it].x).sum();
    (!neighbours.is_empty()).then(|| sum / neighbours.len() as f64)
}

/// Swaps neighbours as long as that saves a crossing.
fn swap_neighbours(places: &mut [Place], rows: &mut [Vec<usize>]) {
    for at in 0..rows.len() {
        number(places, rows);
        for n in 1..rows[at].len() {
            let (a, b) = (rows[at][n - 1], rows[at][n]);
            let of = |left: usize, right: usize| {
                let both = [true, false];
                both.iter()
                    .map(|&up| between(places, places[left].neighbours(up), places[right].neighbours(up)))
                    .sum::<usize>()
            };
            if of(b, a) < of(a, b) {
                rows[at].swap(n - 1, n);
            }
        }
    }
}

/// The crossings of links that lead from a place and from one to its right to these neighbours.
fn between(places: &[Place], left: &[usize], right: &[usize]) -> usize {
    let crossed = |a: usize| right.iter().filter(move |&&b| places[a].x > places[b].x).count();
    left.iter().map(|&a| crossed(a)).sum()
}

fn crossings(places: &mut [Place], rows: &[Vec<usize>]) -> usize {
    number(places, rows);
    let pairs = |row: &Vec<usize>| {
        let each = (0..row.len()).flat_map(|a| (a + 1..row.len()).map(move |b| (a, b)));
        each.map(|(a, b)| between(places, &places[row[a]].below, &places[row[b]].below)).sum::<usize>()
    };
    rows.iter().map(pairs).sum()
}

/// Moves the places of each layer below their neighbours above, then above those below, in turn.
fn straighten(places: &mut [Place], rows: &[Vec<usize>]) {
    for row in rows {
        let mut x = 0.0;
        for &it in row {
            places[it].x = x + places[it].left;
            x = places[it].x + places[it].right + GAP;
        }
    }
    for sweep in 0..2 * SWEEPS {
        let depth = rows.len();
        for step in 0..depth {
            let up = sweep % 2 == 0;
            let row = &rows[if up { step } else { depth - 1 - step }];
            let wish = |it: usize| {
                let pull = |up: bool| pull(places, places[it].neighbours(up), places[it].weight);
                let near = pull(up);
                // the last sweeps look at both sides
                let far = if sweep < SWEEPS { (0.0, 0.0) } else { pull(!up) };
                let weight = near.1 + far.1;
                if weight > 0.0 { (near.0 + far.0) / weight } else { places[it].x }
            };
            let wishes: Vec<f64> = row.iter().map(|&it| wish(it)).collect();
            settle(places, row, &wishes);
        }
    }
}

/// The weighted sum of the neighbours' places, and their weight. To a box, all neighbours are alike; a point would
/// rather be in line with the next point than with a box.
fn pull(places: &[Place], neighbours: &[usize], weight: f64) -> (f64, f64) {
    let weight_of = |it: usize| if weight > 1.0 { places[it].weight } else { 1.0 };
    let sum = neighbours.iter().map(|&it| places[it].x * weight_of(it)).sum();
    (sum, neighbours.iter().map(|&it| weight_of(it)).sum())
}

/// Puts the points of a link in one line, where there is room for one.
fn align(places: &mut [Place], rows: &[Vec<usize>], chain: &[usize]) {
    let points = &chain[1..chain.len() - 1];
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    for &it in points {
        let row = &rows[places[it].layer];
        let n = row.iter().position(|&other| other == it).unwrap_or_default();
        if let Some(&before) = n.checked_sub(1).and_then(|n| row.get(n)) {
            low = low.max(places[before].x + places[before].right + GAP + places[it].left);
        }
        if let Some(&after) = row.get(n + 1) {
            high = high.min(places[after].x - places[after].left - GAP - places[it].right);
        }
    }
    if low <= high {
        let mean = points.iter().map(|&it| places[it].x).sum::<f64>() / points.len() as f64;
        points.iter().for_each(|&it| places[it].x = mean.clamp(low, high));
    }
}

/// The places of a layer as near to their wishes as can be, by the weighted square of the distance, without overlap:
/// neighbours that want to be in the same place form a block, which stands at the mean of its wishes.
fn settle(places: &mut [Place], row: &[usize], wishes: &[f64]) {
    let (mut blocks, mut offset): (Vec<(f64, f64, usize)>, f64) = (Vec::new(), 0.0);
    let mut offsets = Vec::with_capacity(row.len());
    for (n, &it) in row.iter().enumerate() {
        if n > 0 {
            offset += places[row[n - 1]].right + GAP + places[it].left;
        }
        offsets.push(offset);
        let mut block = (wishes[n] - offset, places[it].weight, 1);
        while let Some(before) = blocks.pop_if(|before| before.0 > block.0) {
            let weight = before.1 + block.1;
            block = ((before.0 * before.1 + block.0 * block.1) / weight, weight, before.2 + block.2);
        }
        blocks.push(block);
    }
    let all = blocks.iter().flat_map(|&(x, _, count)| std::iter::repeat_n(x, count));
    for ((x, offset), &it) in all.zip(offsets).zip(row) {
        places[it].x = x + offset;
    }
}

/// The upper side of each layer; the last one is the lower side of the drawing. Links that lead far to the side get
/// room to bend.
fn tops(places: &[Place], rows: &[Vec<usize>]) -> Vec<f64> {
    let (mut y, mut tops) = (0.0, Vec::new());
    for row in rows {
        tops.push(y);
        y += row.iter().map(|&it| places[it].height).fold(0.0, f64::max);
        let sideways =
            row.iter().flat_map(|&it| places[it].below.iter().map(move |&to| (places[it].x - places[to].x).abs()));
        y += LAYER_GAP + (sideways.fold(0.0, f64::max) / 10.0).min(30.0);
    }
    tops.push(y - LAYER_GAP);
    tops
}

fn finish(
    nodes: &[Node],
    links: &[Link],
    places: &[Place],
    rows: &[Vec<usize>],
    tops: &[f64],
    chains: &[Vec<usize>],
    turned: &[bool],
) -> Layout {
    let left = places.iter().map(|place| place.x - place.left).fold(f64::INFINITY, f64::min);
    let right = places.iter().map(|place| place.x + place.right).fold(f64::NEG_INFINITY, f64::max);
    let x = |it: usize| places[it].x - left;
    let top = |it: usize| tops[places[it].layer];
    let bottom = |it: usize| {
        let row = &rows[places[it].layer];
        top(it) + row.iter().map(|&other| places[other].height).fold(0.0, f64::max)
    };
    // links that share a side of a box stand side by side there
    let port = |node: usize, other: usize, upper: bool| {
        let place = &places[node];
        let mut side = place.neighbours(upper).to_vec();
        side.sort_by(|&a, &b| places[a].x.partial_cmp(&places[b].x).unwrap_or(Ordering::Equal));
        let n = side.iter().position(|&it| it == other).unwrap_or_default() as f64;
        let step = (1.6 * place.left / side.len() as f64).min(34.0);
        x(node) + step * (n - (side.len() as f64 - 1.0) / 2.0)
    };
    let route = |n: usize| {
        let chain = &chains[n];
        let (upper, lower) = (chain[0], chain[chain.len() - 1]);
        // a bend that is hardly seen is none
        let near = |x: f64, line: f64| if (x - line).abs() < BEND { line } else { x };
        let mut line = near(port(upper, chain[1], false), x(chain[1]));
        let below = Point { x: line, y: top(upper) + nodes[upper].height };
        let mut points = vec![below, Point { x: line, y: bottom(upper) }];
        let mut label = below;
        for &it in &chain[1..chain.len() - 1] {
            line = near(x(it), line);
            points.push(Point { x: line, y: top(it) });
            points.push(Point { x: line, y: bottom(it) });
            if places[it].right > POINT {
                label = Point { x: line, y: top(it) };
            }
        }
        let end = Point { x: near(port(lower, chain[chain.len() - 2], true), line), y: top(lower) };
        points.extend([Point { y: end.y - 4.0, ..end }, end]);
        if turned[n] {
            points.reverse();
        }
        Route { points, label }
    };
    Layout {
        width: right - left,
        height: tops.last().copied().unwrap_or_default(),
        nodes: (0..nodes.len()).map(|it| Point { x: x(it), y: top(it) }).collect(),
        links: (0..links.len()).map(route).collect(),
    }
}
