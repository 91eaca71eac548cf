//! Drawings, as SVG inside of the page. Coordinates are rounded: the page stays small, and its bytes do not depend on the
//! last digit of a sum.

use std::fmt::Write as _;

use super::escaped;
use crate::change::ColumnDrift;
use crate::outliers::Scatter;
use crate::profile::{ColumnProfile, Histogram, Shape};

/// Bars of drift that are drawn.
const MOST_BARS: usize = 30;
/// Values of a category that are drawn.
const MOST_VALUES: usize = 8;
/// Characters of a name beside a bar.
const NAME: usize = 22;

/// A number for people: at most five digits that count.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if !(1e-4..1e7).contains(&size) => format!("{value:.3e}"),
        _ => {
            let digits = (4 - size.log10().floor() as i64).clamp(0, 8) as usize;
            let text = format!("{value:.digits$}");
            if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            } else {
                text
            }
        }
    }
}

fn cut(name: &str) -> String {
    let short: String = name.chars().take(NAME).collect();
    let more = if name.chars().nth(NAME).is_some() { "..." } else { "" };
    escaped(&format!("{short}{more}"))
}

fn svg(width: u32, height: u32, title: &str, inside: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>{inside}</svg>"
    )
}

/// One horizontal bar a column, most drift first.
pub(super) fn drift_bars(columns: &[ColumnDrift]) -> String {
    let most = columns.iter().map(|column| column.psi.max(column.chance)).fold(0.25, f64::max);
    let at = |value: f64| 170.0 + (value / most).clamp(0.0, 1.0) * 360.0;
    let mut inside = String::new();
    for (index, column) in columns.iter().take(MOST_BARS).enumerate() {
        let y = index * 20;
        let _ = write!(
            inside,
            "<text x=\"0\" y=\"{}\">{}</text><rect class=\"f\" x=\"170\" y=\"{}\" width=\"{:.1}\" height=\"12\"/>\
             <line class=\"r\" x1=\"{chance:.1}\" x2=\"{chance:.1}\" y1=\"{}\" y2=\"{}\"/><text x=\"{:.1}\" y=\"{}\">{:.3}</text>",
            y + 14,
            cut(&column.column),
            y + 4,
            at(column.psi) - 170.0,
            y + 2,
            y + 18,
            at(column.psi.max(column.chance)) + 6.0,
            y + 14,
            column.psi,
            chance = at(column.chance),
        );
    }
    svg(600, (columns.len().clamp(1, MOST_BARS) * 20 + 4) as u32, "drift of each column", &inside)
}

/// Names with their shares.
pub(super) fn share_bars(shares: &[(String, f64)]) -> String {
    let most = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut inside = String::new();
    for (index, (name, share)) in shares.iter().take(MOST_BARS).enumerate() {
        let (y, width) = (index * 20, share / most * 360.0);
        let _ = write!(
            inside,
            "<text x=\"0\" y=\"{}\">{}</text><rect class=\"f\" x=\"170\" y=\"{}\" width=\"{width:.1}\" height=\"12\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.1} %</text>",
            y + 14,
            cut(name),
            y + 4,
            176.0 + width,
            y + 14,
            share * 100.0
        );
    }
    svg(600, (shares.len().clamp(1, MOST_BARS) * 20 + 4) as u32, "share of each label", &inside)
}

/// A column's histogram with the reference as a line, and its box plot; or the bars of a category.
pub(super) fn column(column: &ColumnProfile, reference: Option<&Shape>) -> String {
    match (&column.shape, &column.histogram) {
        (Some(shape), _) => numbers(column, shape, reference),
        (None, Some(Histogram::Values { values, counts, other, nulls })) => {
            let all = (counts.iter().sum::<u64>() + other + nulls).max(1) as f64;
            let mut bars: Vec<(String, f64)> = values
                .iter()
                .zip(counts)
                .map(|(value, count)| (value.clone(), *count as f64 / all))
                .collect();
            let rest: f64 = bars.split_off(MOST_VALUES.min(bars.len())).iter().map(|(_, share)| share).sum();
            let rest = rest + *other as f64 / all;
            if rest > 0.0 {
                bars.push(("(others)".to_owned(), rest));
            }
            share_bars(&bars)
        }
        _ => String::new(),
    }
}

fn numbers(column: &ColumnProfile, shape: &Shape, reference: Option<&Shape>) -> String {
    const WIDTH: f64 = 280.0;
    const HEIGHT: f64 = 80.0;
    let from = reference.map_or(shape.from, |there| shape.from.min(there.from));
    let to = reference.map_or(shape.to, |there| shape.to.max(there.to));
    let range = to - from;
    let x = |value: f64| if range.is_finite() { (value - from) / range * WIDTH } else { WIDTH / 2.0 };
    // Shares a unit of width: bins of the two may differ.
    let density = |shape: &Shape| -> Vec<f64> {
        let all = shape.counts.iter().sum::<u64>().max(1) as f64;
        let width = (shape.to - shape.from) / shape.counts.len().max(1) as f64 / range;
        shape.counts.iter().map(|count| *count as f64 / all / width).collect()
    };
    let (now, before) = (density(shape), reference.map(density).unwrap_or_default());
    let most = now
        .iter()
        .chain(&before)
        .copied()
        .filter(|density| density.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    let y = |density: f64| HEIGHT - (density / most).clamp(0.0, 1.0) * (HEIGHT - 4.0);
    let edge = |shape: &Shape, bin: usize| {
        shape.from + (shape.to - shape.from) * bin as f64 / shape.counts.len().max(1) as f64
    };
    let mut inside = String::new();
    for (bin, density) in now.iter().enumerate() {
        let (left, right) = (x(edge(shape, bin)), x(edge(shape, bin + 1)));
        let _ = write!(
            inside,
            "<rect class=\"f\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            y(*density),
            (right - left - 0.6).max(0.4),
            HEIGHT - y(*density)
        );
    }
    if let Some(there) = reference {
        let mut points = String::new();
        for (bin, density) in before.iter().enumerate() {
            let (left, right, y) = (x(edge(there, bin)), x(edge(there, bin + 1)), y(*density));
            let _ = write!(points, "{left:.1},{y:.1} {right:.1},{y:.1} ");
        }
        let _ = write!(inside, "<polyline class=\"r\" points=\"{points}\"/>");
    }
    if let [_, _, low, middle, high, ..] = column.quantiles.as_slice() {
        let (low, middle, high) = (x(*low), x(*middle), x(*high));
        let _ = write!(
            inside,
            "<line class=\"w\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"94\" y2=\"94\"/><rect class=\"b\" x=\"{low:.1}\" y=\"87\" \
             width=\"{:.1}\" height=\"14\"/><line class=\"w\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"87\" y2=\"101\"/>",
            x(shape.from),
            x(shape.to),
            (high - low).max(1.0)
        );
    }
    let _ = write!(
        inside,
        "<line class=\"a\" x1=\"0\" x2=\"280\" y1=\"80\" y2=\"80\"/><text x=\"0\" y=\"116\">{}</text>\
         <text x=\"280\" y=\"116\" text-anchor=\"end\">{}</text>",
        short(from),
        short(to)
    );
    svg(280, 120, &format!("distribution of {}", column.name), &inside)
}

/// Rows in two columns, marked ones on top.
pub(super) fn scatter(scatter: &Scatter) -> String {
    const WIDTH: f64 = 460.0;
    const HEIGHT: f64 = 300.0;
    // Room for the numbers at the axis.
    const LEFT: f64 = 70.0;
    let range = |of: fn(&(f64, f64, bool)) -> f64| {
        let ends = (f64::INFINITY, f64::NEG_INFINITY);
        scatter.points.iter().map(of).fold(ends, |(low, high), value| (low.min(value), high.max(value)))
    };
    let (xs, ys) = (range(|point| point.0), range(|point| point.1));
    let place = |value: f64, (low, high): (f64, f64), length: f64| match high - low {
        width if width > 0.0 && width.is_finite() => 6.0 + (value - low) / width * (length - 12.0),
        _ => length / 2.0,
    };
    let mut inside = String::new();
    for (x, y, marked) in &scatter.points {
        let (class, radius) = if *marked { ("o", 3.5) } else { ("f", 2.0) };
        let _ = write!(
            inside,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\"/>",
            LEFT + place(*x, xs, WIDTH),
            HEIGHT - place(*y, ys, HEIGHT)
        );
    }
    let _ = write!(
        inside,
        "<line class=\"a\" x1=\"70\" x2=\"530\" y1=\"300\" y2=\"300\"/><line class=\"a\" x1=\"70\" x2=\"70\" y1=\"0\" y2=\"300\"/>\
         <text x=\"70\" y=\"316\">{}</text><text x=\"530\" y=\"316\" text-anchor=\"end\">{}</text>\
         <text x=\"300\" y=\"330\" text-anchor=\"middle\">{}</text>\
         <text x=\"66\" y=\"298\" text-anchor=\"end\">{}</text><text x=\"66\" y=\"12\" text-anchor=\"end\">{}</text>\
         <text transform=\"translate(12 150) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        short(xs.0),
        short(xs.1),
        cut(&scatter.x),
        short(ys.0),
        short(ys.1),
        cut(&scatter.y)
    );
    svg(540, 336, "marked rows among the others", &inside)
}
