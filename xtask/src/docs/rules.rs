//! Prometheus' rules as the resource that its operator for Kubernetes reads: the same files, two columns further in.

const FILES: [&str; 3] = [
    include_str!("../../../deploy/prometheus/rules/recording.yml"),
    include_str!("../../../deploy/prometheus/rules/alerts.yml"),
    include_str!("../../../deploy/prometheus/rules/aliases.yml"),
];

const HEAD: &str = "\
# Written by `cargo xtask docs` from deploy/prometheus/rules: change those, not this file.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pgweir
  labels:
    app.kubernetes.io/name: pgweir
spec:
  groups:
";

pub(super) fn page() -> String {
    let mut page = String::from(HEAD);
    let lines = FILES.iter().flat_map(|file| file.lines());
    for line in lines.filter(|line| !line.starts_with('#') && *line != "groups:") {
        match line {
            "" => {}
            line => page.extend(["  ", line]),
        }
        page.push('\n');
    }
    page
}
