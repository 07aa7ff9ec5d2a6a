//! How old: the same filter for lists, actions and the dashboard.

use clap::Args;
use saga_core::AgeFilter;
use std::time::Duration;

#[derive(Args, Default, Clone)]
pub(crate) struct Age {
    /// Only those that have waited for this long (`90s`, `15m`, `3h`, `2d`)
    #[arg(long, value_name = "TIME", value_parser = super::length)]
    older_than: Option<Duration>,
    /// Only those that have not waited for this long
    #[arg(long, value_name = "TIME", value_parser = super::length)]
    newer_than: Option<Duration>,
}

impl Age {
    pub(super) fn filter(&self) -> AgeFilter {
        let mut filter = AgeFilter::default();
        (filter.older_than, filter.newer_than) = (self.older_than, self.newer_than);
        filter
    }
}
