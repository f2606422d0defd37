//! Which pictures there are: one per group of workloads.

use super::{
    peer::Peer,
    results::Results,
    svg::{BarGroup, Chart, draw},
    tables::measured,
    workload::Group,
};

/// One picture and its file.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) file: String,
    pub(crate) title: &'static str,
    pub(crate) svg: String,
}

/// Everybody's costs in terms of PgBouncer's. Without a PgBouncer there are none.
pub(crate) fn pictures(results: &Results) -> Vec<Picture> {
    let pictures = Group::ALL.into_iter().filter_map(|group| {
        let (file, title) = group.titles();
        let chart = chart(results, group, title)?;
        Some(Picture {
            file: format!("{file}.svg"),
            title,
            svg: draw(&chart),
        })
    });
    pictures.collect()
}

fn chart(results: &Results, group: Group, title: &str) -> Option<Chart> {
    let workloads: Vec<_> = measured(results).filter(|it| it.group == group).collect();
    let ratio = |name: &str, peer| results.cost_ratio(name, peer, Peer::PgBouncer);
    let takes_part = |peer: &Peer| {
        let mut workloads = workloads.iter();
        *peer != Peer::PgBouncer && workloads.any(|it| ratio(it.name, *peer).is_some())
    };
    let peers: Vec<Peer> = Peer::ALL.into_iter().filter(takes_part).collect();
    if peers.is_empty() {
        return None;
    }
    let groups = workloads.iter().map(|workload| BarGroup {
        label: workload.name.to_owned(),
        bars: peers
            .iter()
            .map(|peer| ratio(workload.name, *peer))
            .collect(),
    });
    Some(Chart {
        title: title.to_owned(),
        note: format!(
            "In terms of PgBouncer (the line at 1), lower is better; median and range of {}",
            results.how_many_rounds()
        ),
        series: peers.iter().map(Peer::to_string).collect(),
        groups: groups
            .filter(|group| group.bars.iter().any(Option::is_some))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_group_that_ran_has_a_picture() {
        let pictures = pictures(&results("copy_out", &[(1.0, 2.0)]));
        let files: Vec<&str> = pictures.iter().map(|it| it.file.as_str()).collect();
        assert_eq!(files, ["transfers.svg"]);
        assert!(pictures[0].svg.contains(">copy_out</text>"));
        assert!(pictures[0].svg.contains(">0.50</text>"));
    }

    #[test]
    fn without_pgbouncer_there_is_nothing_to_compare_with() {
        let mut results = results("copy_out", &[(1.0, 2.0)]);
        results.runs.truncate(1);
        assert!(pictures(&results).is_empty());
    }
}
