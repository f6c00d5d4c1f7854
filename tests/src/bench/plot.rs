//! A chart as SVG: groups of bars, with a line from the lowest to the highest of the rounds on each. Errors: it can't be written.

use super::record::Chart;
use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 400);
/// Told apart also by those who see no red and green.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x88, 0x88, 0x88),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
];
/// Above the highest bar, for the names of the series.
const HEADROOM: f64 = 1.4;
/// What of a group's width is bars.
const FILLED: f64 = 0.8;

/// Writes it into the folder.
pub(super) fn draw(chart: &Chart, folder: &Path) -> Result<()> {
    let path = folder.join(format!("{}.svg", chart.file));
    // The drawing area borrows the path and its errors can't leave it.
    drawn(chart, &path)
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("can't draw {}", path.display()))
}

fn drawn(chart: &Chart, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let all = chart.series.iter().flat_map(|series| &series.values);
    let most = all.fold(0.0, |most: f64, [_, _, high]| most.max(*high));
    let groups = chart.groups.len() as f64;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut context = ChartBuilder::on(&area)
        .caption(&chart.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..groups, 0.0..most.max(f64::MIN_POSITIVE) * HEADROOM)?;
    // A group's name stands under its middle; plotters puts a label at each of so many places.
    let name = |x: &f64| {
        let place = x.floor();
        let middle = (x - place - 0.5).abs() < 0.01;
        let found = chart
            .groups
            .iter()
            .enumerate()
            .find(|(at, _)| middle && *at as f64 == place);
        found.map(|(_, name)| name.clone()).unwrap_or_default()
    };
    context
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .x_labels(chart.groups.len() * 2 + 1)
        .x_label_formatter(&name)
        .y_label_formatter(&|y| format!("{y}"))
        .label_style(("sans-serif", 13))
        .draw()?;
    let width = FILLED / chart.series.len().max(1) as f64;
    for ((number, series), colour) in chart.series.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let left = |group: usize| group as f64 + (1.0 - FILLED) / 2.0 + number as f64 * width;
        let bars = series.values.iter().enumerate().map(|(group, [_, median, _])| {
            let bar = [(left(group), 0.0), (left(group) + width * 0.94, *median)];
            Rectangle::new(bar, colour.filled())
        });
        let drawn = context.draw_series(bars)?;
        let colour = *colour;
        drawn
            .label(&series.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let spreads = series.values.iter().enumerate().map(|(group, [low, _, high])| {
            let middle = left(group) + width * 0.47;
            PathElement::new([(middle, *low), (middle, *high)], BLACK)
        });
        context.draw_series(spreads)?;
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::Series;
    use super::*;

    #[test]
    fn a_chart_names_its_groups_and_series() {
        let folder = tempfile::tempdir().unwrap();
        let series = |name: &str| Series {
            name: name.to_owned(),
            values: vec![[1.0, 2.0, 3.0]; 5],
        };
        let names = ["1 to 4", "1 to 2, each to 1", "1 to 9", "x", "y"];
        let chart = Chart {
            file: "chart".to_owned(),
            title: "how long it takes".to_owned(),
            groups: names.map(str::to_owned).to_vec(),
            series: vec![series("the bound"), series("Qbox")],
        };
        draw(&chart, folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("chart.svg")).unwrap();
        for word in names.into_iter().chain(["the bound", "Qbox", "how long"]) {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
