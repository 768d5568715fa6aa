//! A plot of lines as SVG.

use std::fmt::Write;

pub struct Line {
    pub name: String,
    /// Drawn heavier than what it is compared with.
    pub is_own: bool,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;

/// Where the axes are.
const LEFT: f64 = 68.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 380.0;

/// What the names at the right ends take of the height.
const NAME: f64 = 18.0;

/// Can be told from each other, also by people who see few colours, on white.
const OWN: [&str; 4] = ["#0b5cad", "#0f8a6d", "#7a3fb5", "#1e9bd1"];
const OTHERS: [&str; 4] = ["#b3541e", "#5f5f5f", "#8f6410", "#444444"];

/// Milliseconds against milliseconds, one line for each tool.
pub fn svg(lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let most_x = all().map(|point| point.0).fold(1.0, f64::max);
    let step = step(all().map(|point| point.1).fold(1.0, f64::max));
    let most_y = (all().map(|point| point.1).fold(1.0, f64::max) / step).ceil() * step;
    let x = |value: f64| LEFT + (RIGHT - LEFT) * value / most_x;
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / most_y;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"13\" fill=\"#222\">\n\
         <title>Latency of a save against round-trip time</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\" font-weight=\"600\">\
         From a save to the server, in ms (median)</text>\n"
    );
    let mut value = 0.0;
    while value <= most_y {
        let (at, text) = (y(value), y(value) + 4.5);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#e3e3e3\"/>\
             <text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 8.0
        );
        value += step;
    }
    for value in ticks(lines) {
        let at = x(value);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {BOTTOM}v5\" stroke=\"#222\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            BOTTOM + 20.0
        );
    }
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#222\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">round-trip time, in ms</text>",
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 44.0
    );
    let ends: Vec<_> =
        lines.iter().map(|line| y(line.points.last().map_or(0.0, |end| end.1))).collect();
    let (mut own, mut others) = (OWN.iter().cycle(), OTHERS.iter().cycle());
    for ((line, end), name) in lines.iter().zip(&ends).zip(apart(&ends)) {
        let colour = if line.is_own { own.next() } else { others.next() }.unwrap_or(&"#222");
        let (width, dashes, weight) =
            if line.is_own { ("2.6", "none", "600") } else { ("1.8", "6 4", "400") };
        let points: Vec<_> =
            line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-dasharray=\"{dashes}\"/>",
            points.join(" ")
        );
        for (a, b) in &line.points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*a),
                y(*b)
            );
        }
        let last = line.points.last().map_or(0.0, |end| end.1);
        let _ = writeln!(
            svg,
            "<path d=\"M{:.1} {end:.1}L{:.1} {name:.1}\" stroke=\"{colour}\" stroke-width=\"1\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" font-weight=\"{weight}\">{}: {last:.0} ms</text>",
            RIGHT + 5.0,
            RIGHT + 20.0,
            RIGHT + 25.0,
            name + 4.5,
            line.name
        );
    }
    svg + "</svg>\n"
}

/// The round-trip times that were measured.
fn ticks(lines: &[Line]) -> Vec<f64> {
    let mut all: Vec<_> = lines.iter().flat_map(|line| &line.points).map(|point| point.0).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// A round number of which four to nine make up an axis.
fn step(most: f64) -> f64 {
    let unit = 10_f64.powf((most / 4.0).log10().floor());
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|times| times * unit)
        .find(|step| *step <= most / 4.0)
        .unwrap_or(unit)
}

/// Where names go that belong to these heights, none over another.
fn apart(ends: &[f64]) -> Vec<f64> {
    let mut order: Vec<_> = (0..ends.len()).collect();
    order.sort_by(|one, other| ends[*other].total_cmp(&ends[*one]));
    let mut places = ends.to_vec();
    let mut lowest_free = BOTTOM;
    // From the bottom up, where lines lie close together.
    for index in order {
        places[index] = ends[index].min(lowest_free);
        lowest_free = places[index] - NAME;
    }
    places
}
