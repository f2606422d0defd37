//! Grouped bars with whiskers as SVG: a few functions instead of a library. Series differ by pattern and every bar has
//! its number, so that no colour is needed; a picture brings its own paper, light or dark as the reader's system is.

use super::results::Spread;

/// One picture.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) note: String,
    pub(crate) series: Vec<String>,
    pub(crate) groups: Vec<BarGroup>,
}

/// Bars that stand together, one per series; not every series has one.
#[derive(Debug)]
pub(crate) struct BarGroup {
    pub(crate) label: String,
    pub(crate) bars: Vec<Option<Spread>>,
}

// All lengths are pixels.
const LEFT: f64 = 44.0;
const TOP: f64 = 62.0;
const PLOT_HEIGHT: f64 = 200.0;
const BOTTOM: f64 = 34.0;
const LEGEND_ROW: f64 = 20.0;
const BAR: f64 = 24.0;
const BETWEEN_BARS: f64 = 4.0;
const BETWEEN_GROUPS: f64 = 26.0;
/// Of one letter, roughly.
const LETTER: f64 = 6.6;
const WIDTH_MIN: f64 = 420.0;

/// Taller bars are cut; their number says how tall they are.
const SCALE_MAX: f64 = 2.5;

const STYLE: &str = "\
    text{font-family:system-ui,sans-serif;font-size:11px;fill:#1f2328}\
    .title{font-size:14px;font-weight:600}.value{font-size:10px;text-anchor:middle;stroke:#ffffff;stroke-width:3px;paint-order:stroke}\
    .paper{fill:#ffffff}.ink{fill:#8c959f}.halo{stroke:#ffffff;fill:none}.line{stroke:#1f2328;fill:none}.grid{stroke:#d0d7de}\
    .bar{stroke:#1f2328}.stroke{stroke:#1f2328;fill:none}.dot{fill:#1f2328}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.paper{fill:#0d1117}.ink{fill:#6e7681}.halo{stroke:#0d1117}.value{stroke:#0d1117}\
    .line{stroke:#e6edf3}.grid{stroke:#30363d}.bar{stroke:#e6edf3}.stroke{stroke:#e6edf3}.dot{fill:#e6edf3}}";

/// What series are filled with, in their order.
const PATTERNS: [(&str, &str); 6] = [
    ("solid", "<rect width=\"8\" height=\"8\" class=\"ink\"/>"),
    (
        "diagonal",
        "<path d=\"M0 8L8 0M-2 2L2 -2M6 10L10 6\" class=\"stroke\"/>",
    ),
    (
        "dots",
        "<circle cx=\"4\" cy=\"4\" r=\"1.5\" class=\"dot\"/>",
    ),
    ("rows", "<path d=\"M0 4H8\" class=\"stroke\"/>"),
    ("grid", "<path d=\"M0 4H8M4 0V8\" class=\"stroke\"/>"),
    ("empty", ""),
];

/// The picture as text.
pub(crate) fn draw(chart: &Chart) -> String {
    let scale = Scale::of(chart);
    let width = chart.width();
    let legend_rows = chart.legend(width).len() as f64;
    let height = TOP + PLOT_HEIGHT + BOTTOM + legend_rows * LEGEND_ROW;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n<defs>\n",
        title = escaped(&chart.title),
    );
    for (name, shape) in PATTERNS {
        out += &format!(
            "<pattern id=\"{name}\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">\
             <rect width=\"8\" height=\"8\" class=\"paper\"/>{shape}</pattern>\n"
        );
    }
    out += "</defs>\n<rect width=\"100%\" height=\"100%\" class=\"paper\"/>\n";
    out += &text(LEFT, 22.0, "title", &chart.title);
    out += &text(LEFT, 40.0, "note", &chart.note);
    out += &axis(&scale, width);
    let mut numbers = String::new();
    let mut x = LEFT + BETWEEN_GROUPS / 2.0;
    for group in &chart.groups {
        let drawn = group.draw(x, &scale);
        out += &drawn.bars;
        numbers += &drawn.numbers;
        x += group.width() + BETWEEN_GROUPS;
    }
    // Over the bars, so that it can be seen everywhere, and under the numbers.
    let one = scale.y(1.0);
    out +=
        &format!("<path d=\"M{LEFT} {one:.1}H{width:.0}\" class=\"line\" stroke-width=\"1.5\"/>\n");
    out += &numbers;
    out += &legend(&chart.legend(width));
    out + "</svg>\n"
}

impl Chart {
    fn width(&self) -> f64 {
        let groups = self.groups.iter();
        let bars: f64 = groups.map(|group| group.width() + BETWEEN_GROUPS).sum();
        let words = [&self.title, &self.note].map(|text| text.len() as f64 * LETTER);
        (LEFT + bars)
            .max(WIDTH_MIN)
            .max(LEFT + words[0].max(words[1]))
            .ceil()
    }

    /// Which series stand in which row.
    fn legend(&self, width: f64) -> Vec<Vec<(usize, &str)>> {
        let mut rows: Vec<Vec<(usize, &str)>> = vec![Vec::new()];
        let mut x = LEFT;
        for (at, name) in self.series.iter().enumerate() {
            let needed = entry_width(name);
            if x + needed > width && x > LEFT {
                rows.push(Vec::new());
                x = LEFT;
            }
            x += needed;
            if let Some(row) = rows.last_mut() {
                row.push((at, name));
            }
        }
        rows
    }
}

impl BarGroup {
    fn width(&self) -> f64 {
        let bars = self.bars.iter().flatten().count() as f64;
        let bars = bars * (BAR + BETWEEN_BARS) - BETWEEN_BARS;
        bars.max(self.label.len() as f64 * LETTER)
    }

    fn draw(&self, left: f64, scale: &Scale) -> Drawn {
        let count = self.bars.iter().flatten().count() as f64;
        let middle = left + self.width() / 2.0;
        let mut x = middle - (count * (BAR + BETWEEN_BARS) - BETWEEN_BARS) / 2.0;
        let (mut out, mut numbers) = (String::new(), String::new());
        for (at, bar) in self.bars.iter().enumerate() {
            let Some(spread) = bar else { continue };
            let (top, bottom) = (scale.y(spread.median), scale.y(0.0));
            out += &format!(
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{BAR}\" height=\"{:.1}\" fill=\"url(#{})\" class=\"bar\"/>\n",
                bottom - top,
                pattern(at),
            );
            let (high, low) = (scale.y(spread.max), scale.y(spread.min));
            let centre = x + BAR / 2.0;
            out += &whisker(centre, high, low);
            let number = format!("{:.2}", spread.median);
            numbers += &text(centre, high - 5.0, "value", &number);
            x += BAR + BETWEEN_BARS;
        }
        let under = TOP + PLOT_HEIGHT + 18.0;
        out += &format!(
            "<text x=\"{middle:.1}\" y=\"{under:.1}\" text-anchor=\"middle\">{}</text>\n",
            escaped(&self.label)
        );
        Drawn { bars: out, numbers }
    }
}

/// A group of bars, and what comes above everything else.
struct Drawn {
    bars: String,
    numbers: String,
}

/// A thick line of paper under the thin one of ink, so that it can be seen on every pattern.
fn whisker(x: f64, high: f64, low: f64) -> String {
    let path = format!(
        "M{:.1} {high:.1}H{:.1}M{x:.1} {high:.1}V{low:.1}M{:.1} {low:.1}H{:.1}",
        x - 4.0,
        x + 4.0,
        x - 4.0,
        x + 4.0
    );
    format!(
        "<path d=\"{path}\" class=\"halo\" stroke-width=\"4\"/>\n\
         <path d=\"{path}\" class=\"line\" stroke-width=\"1.5\"/>\n"
    )
}

/// From ratios to places.
struct Scale {
    max: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let bars = chart.groups.iter().flat_map(|group| &group.bars).flatten();
        let highest = bars.map(|spread| spread.max).fold(1.0, f64::max);
        // To the next quarter, with room for the numbers.
        let max = ((highest + 0.1) * 4.0).ceil() / 4.0;
        Self {
            max: max.min(SCALE_MAX),
        }
    }

    fn y(&self, ratio: f64) -> f64 {
        TOP + PLOT_HEIGHT * (1.0 - ratio.min(self.max) / self.max)
    }
}

fn axis(scale: &Scale, width: f64) -> String {
    let mut out = String::new();
    let step = if scale.max > 1.5 { 0.5 } else { 0.25 };
    let mut ratio = 0.0;
    while ratio <= scale.max {
        let y = scale.y(ratio);
        out += &format!("<path d=\"M{LEFT} {y:.1}H{width:.0}\" class=\"grid\"/>\n");
        let label_y = y + 4.0;
        out += &format!(
            "<text x=\"{:.0}\" y=\"{label_y:.1}\" text-anchor=\"end\">{ratio:.2}</text>\n",
            LEFT - 6.0
        );
        ratio += step;
    }
    out
}

fn legend(rows: &[Vec<(usize, &str)>]) -> String {
    let mut out = String::new();
    let mut y = TOP + PLOT_HEIGHT + BOTTOM;
    for row in rows {
        let mut x = LEFT;
        for (at, name) in row {
            out += &format!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"14\" height=\"12\" fill=\"url(#{})\" class=\"bar\"/>\n",
                pattern(*at)
            );
            out += &text(x + 20.0, y + 10.0, "name", name);
            x += entry_width(name);
        }
        y += LEGEND_ROW;
    }
    out
}

fn entry_width(name: &str) -> f64 {
    name.len() as f64 * LETTER + 40.0
}

fn pattern(series: usize) -> &'static str {
    PATTERNS[series % PATTERNS.len()].0
}

fn text(x: f64, y: f64, class: &str, text: &str) -> String {
    let text = escaped(text);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(bars: Vec<Option<Spread>>) -> Chart {
        Chart {
            title: "Logins & more".to_owned(),
            note: "lower is better".to_owned(),
            series: bars.iter().map(|_| "somebody".to_owned()).collect(),
            groups: vec![BarGroup {
                label: "connect_16".to_owned(),
                bars,
            }],
        }
    }

    fn spread(median: f64) -> Option<Spread> {
        let (min, max) = (median - 0.1, median + 0.1);
        Some(Spread { median, min, max })
    }

    #[test]
    fn a_bar_is_as_tall_as_its_number() {
        let drawn = draw(&chart(vec![spread(0.5), None, spread(1.0)]));
        // The scale goes to 1.25: a half is 80 of 200 pixels.
        assert!(
            drawn.contains("height=\"80.0\" fill=\"url(#solid)\""),
            "{drawn}"
        );
        assert!(drawn.contains("height=\"160.0\" fill=\"url(#dots)\""));
        assert!(drawn.contains(">0.50</text>") && !drawn.contains("fill=\"url(#rows)\""));
    }

    #[test]
    fn what_is_too_tall_is_cut_and_numbered() {
        let drawn = draw(&chart(vec![spread(19.0)]));
        assert!(drawn.contains("height=\"200.0\" fill"), "{drawn}");
        assert!(drawn.contains(">19.00</text>"));
    }

    #[test]
    fn names_cannot_break_the_picture() {
        let drawn = draw(&chart(vec![spread(1.0)]));
        assert!(drawn.contains("Logins &amp; more</text>"));
        assert_eq!(
            drawn.matches("<text").count(),
            drawn.matches("</text>").count()
        );
    }

    #[test]
    fn a_long_legend_takes_several_rows() {
        let many = chart((0..12).map(|_| spread(1.0)).collect());
        assert!(many.legend(many.width()).len() > 1);
    }
}
