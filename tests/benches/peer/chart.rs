//! One curve as an SVG: measured points, the law that is expected, both axes logarithmic. Colours
//! follow what the reader's machine prefers, light or dark.

use std::fmt::Write;

use crate::results::Origin;

/// A cost that was measured at several sizes.
pub(crate) struct Curve {
    pub(crate) title: String,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    /// Size and cost.
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) law: Law,
}

/// The sum of two terms, each a power of the size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Law {
    pub(crate) powers: [i32; 2],
    pub(crate) factors: [f64; 2],
}

impl Law {
    /// The factors, none below 0, with which the law comes nearest to the points: least squares of
    /// the relative errors.
    pub(crate) fn fit(powers: [i32; 2], points: &[(f64, f64)]) -> Self {
        let term = |x: f64, y: f64, which: usize| x.powi(powers[which]) / y;
        let sum = |f: &dyn Fn(f64, f64) -> f64| points.iter().map(|(x, y)| f(*x, *y)).sum::<f64>();
        let product = |i: usize, j: usize| sum(&|x, y| term(x, y, i) * term(x, y, j));
        let to = |i: usize| sum(&|x, y| term(x, y, i));
        let [aa, ab, bb] = [product(0, 0), product(0, 1), product(1, 1)];
        let [a, b] = [to(0), to(1)];
        let determinant = aa * bb - ab * ab;
        let both = [(a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant];
        let factors = match both {
            [first, second] if first >= 0.0 && second >= 0.0 => both,
            [first, _] if first.is_nan() || first < 0.0 => [0.0, b / bb],
            _ => [a / aa, 0.0],
        };
        Self { powers, factors }
    }

    pub(crate) fn at(&self, x: f64) -> f64 {
        self.factors[0] * x.powi(self.powers[0]) + self.factors[1] * x.powi(self.powers[1])
    }

    /// The law in words.
    fn words(&self) -> String {
        let term = |which: usize| {
            let factor = self.factors[which];
            match self.powers[which] {
                0 => format!("{factor:.3}"),
                -1 => format!("{factor:.3}/n"),
                1 => format!("{factor:.3e}·n"),
                _ => format!("{factor:.3e}·n²"),
            }
        };
        let terms: Vec<String> =
            (0..2).filter(|which| self.factors[*which] > 0.0).map(term).collect();
        terms.join(" + ")
    }
}

const SIZE: [f64; 2] = [640.0, 420.0];
/// Left, right, top, bottom of the field.
const FIELD: [f64; 4] = [70.0, 620.0, 60.0, 345.0];
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#222}.axis{stroke:#999}\
.grid{stroke:#ddd}.law{stroke:#c2571a;fill:none;stroke-width:2;stroke-dasharray:6 4}\
.point{fill:#1f6fb2}@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#3a3a3a}\
.law{stroke:#ff9d5c}.point{fill:#6db7ff}}";

impl Curve {
    /// The largest relative distance of a point from the law.
    pub(crate) fn deviation(&self) -> f64 {
        let off = |(x, y): &(f64, f64)| (y / self.law.at(*x) - 1.0).abs();
        self.points.iter().map(off).fold(0.0, f64::max)
    }

    /// The picture, with the line that says what it is of.
    pub(crate) fn svg(&self, origin: &str) -> String {
        let least =
            |f: &dyn Fn(&(f64, f64)) -> f64| self.points.iter().map(f).fold(f64::MAX, f64::min);
        let most = |f: &dyn Fn(&(f64, f64)) -> f64| self.points.iter().map(f).fold(0.0, f64::max);
        let (x0, x1) = (least(&|p| p.0), most(&|p| p.0).max(least(&|p| p.0) * 1.001));
        let low = least(&|p| p.1.min(self.law.at(p.0))) * 0.8;
        let high = most(&|p| p.1.max(self.law.at(p.0))) * 1.25;
        let place = |value: f64, [from, to]: [f64; 2], [start, end]: [f64; 2]| {
            start + (value / from).ln() / (to / from).ln() * (end - start)
        };
        let [left, right, top, bottom] = FIELD;
        let x = |value: f64| place(value, [x0, x1], [left + 15.0, right - 15.0]);
        let y = |value: f64| place(value, [low, high], [bottom, top]);
        let [width, height] = SIZE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n",
            self.title
        );
        let mut line = |text: String| svg += &(text + "\n");
        let words =
            format!("law {}; measured within {:.0}%", self.law.words(), 100.0 * self.deviation());
        line(format!("<text x=\"{left}\" y=\"24\" font-weight=\"bold\">{}</text>", self.title));
        line(format!("<text x=\"{left}\" y=\"44\">{words}</text>"));
        for value in steps(low, high) {
            let at = y(value);
            line(format!(
                "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                left - 8.0,
                at + 4.0
            ));
        }
        line(format!("<path class=\"axis\" d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\"/>"));
        for (value, _) in &self.points {
            line(format!(
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
                x(*value),
                bottom + 20.0
            ));
        }
        let mut path = String::new();
        for step in 0..=64 {
            let value = x0 * (x1 / x0).powf(f64::from(step) / 64.0);
            let letter = if step == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", x(value), y(self.law.at(value)));
        }
        line(format!("<path class=\"law\" d=\"{path}\"/>"));
        for (size, cost) in &self.points {
            line(format!(
                "<circle class=\"point\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\">\
                 <title>{size}: {cost:.3}</title></circle>",
                x(*size),
                y(*cost)
            ));
        }
        let middle = (left + right) / 2.0;
        line(format!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 44.0,
            self.across
        ));
        let up = (top + bottom) / 2.0;
        line(format!(
            "<text transform=\"translate(16 {up}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            self.up
        ));
        line(origin.to_owned());
        svg + "</svg>\n"
    }
}

/// The line of a picture that says where, and of which state of the source, it was measured.
pub(crate) fn origin_line(origin: &Origin) -> String {
    let Origin { machine, commit } = origin;
    let [width, height] = SIZE;
    let [x, y] = [width - 20.0, height - 8.0];
    format!(
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" style=\"font-size:11px\">\
         {machine}; commit {commit}</text>"
    )
}

/// Values 1, 2 and 5 times a power of ten between two.
fn steps(low: f64, high: f64) -> Vec<f64> {
    let from = low.log10().floor() as i32;
    let to = high.log10().ceil() as i32;
    let all = (from..=to).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, power)));
    // By way of text, so that 0.2 is written as such.
    let value = |(digit, power): (f64, i32)| format!("{digit}e{power}").parse().unwrap_or(digit);
    all.map(value).filter(|value| (low..=high).contains(value)).collect()
}
