//! Draws one metric after the other, under the names that [`described`](super::described) has. Knows no number's meaning. Errors:
//! what is written to takes no more.

use super::described::{Kind, Metric};
use crate::durations::{BUCKETS, Durations};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;

/// See the module.
pub(super) struct Draw<'a>(pub(super) DescriptorEncoder<'a>);

impl Draw<'_> {
    fn head<const N: usize>(&mut self, metric: &Metric<N>) -> Result<MetricEncoder<'_>, fmt::Error> {
        let (kind, unit) = match metric.kind {
            Kind::Gauge => (MetricType::Gauge, None),
            Kind::Seconds => (MetricType::Gauge, Some(&Unit::Seconds)),
            Kind::Bytes => (MetricType::Gauge, Some(&Unit::Bytes)),
            Kind::Counter => (MetricType::Counter, None),
            Kind::Histogram => (MetricType::Histogram, Some(&Unit::Seconds)),
        };
        self.0.encode_descriptor(metric.name, metric.help, unit, kind)
    }

    /// One number.
    pub(super) fn one(&mut self, metric: Metric<0>, value: u64) -> fmt::Result {
        put(metric.kind, value, self.head(&metric)?)
    }

    /// A number for each set of the labels' values.
    pub(super) fn rows<'l, const N: usize>(
        &mut self,
        metric: Metric<N>,
        rows: impl IntoIterator<Item = ([&'l str; N], u64)>,
    ) -> fmt::Result {
        let mut drawn = self.head(&metric)?;
        for (values, value) in rows {
            put(
                metric.kind,
                value,
                drawn.encode_family(&labelled(&metric, values))?,
            )?;
        }
        Ok(())
    }

    /// As [`Draw::rows`], under words of Qbox's own.
    pub(super) fn tally(
        &mut self,
        metric: Metric<1>,
        rows: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        self.rows(metric, rows.into_iter().map(|(word, count)| ([word], count)))
    }

    /// A histogram for each set of the labels' values.
    pub(super) fn histogram<'l, const N: usize>(
        &mut self,
        metric: Metric<N>,
        rows: impl IntoIterator<Item = ([&'l str; N], Durations)>,
    ) -> fmt::Result {
        let mut drawn = self.head(&metric)?;
        for (values, took) in rows {
            let ends = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = ends.zip(took.buckets).collect();
            drawn
                .encode_family(&labelled(&metric, values))?
                .encode_histogram::<NoLabelSet>(took.sum.as_secs_f64(), took.count(), &buckets, None)?;
        }
        Ok(())
    }
}

/// Each label with its value.
fn labelled<'l, const N: usize>(metric: &Metric<N>, values: [&'l str; N]) -> [(&'static str, &'l str); N] {
    let mut values = values.into_iter();
    metric
        .labels
        .map(|label| (label, values.next().unwrap_or_default()))
}

fn put(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
    }
}
