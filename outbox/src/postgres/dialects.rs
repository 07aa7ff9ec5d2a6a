//! Servers that speak PostgreSQL's protocol and are not PostgreSQL.

/// Why a server is refused: what our promise rests on is not there, or is something else. `version` is what its
/// `version()` says.
pub(crate) fn refusal(version: &str, has_citus: bool) -> Option<String> {
    let lacks = |name: &str, what: &str| Some(format!("this is {name}, which Sagabus does not run on: {what}"));
    if version.contains("CockroachDB") {
        return lacks("CockroachDB", "its advisory locks do nothing, and they keep two processes from one instance");
    }
    if version.contains("-YB-") || version.contains("YugabyteDB") {
        return lacks(
            "YugabyteDB",
            "not every version has the advisory locks that keep two processes from one instance",
        );
    }
    if has_citus {
        return lacks("Citus", "a unit of work writes tables that it would spread over several servers");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_postgresql_is_refused_by_name() {
        let cockroach = "CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu, built 2023/09/27)";
        let yugabyte = "PostgreSQL 11.2-YB-2.18.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang";
        let postgres = "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu";
        assert!(refusal(cockroach, false).unwrap().contains("this is CockroachDB"));
        assert!(refusal(yugabyte, false).unwrap().contains("this is YugabyteDB"));
        assert!(refusal(postgres, true).unwrap().contains("this is Citus"));
        assert_eq!(refusal(postgres, false), None);
    }
}
