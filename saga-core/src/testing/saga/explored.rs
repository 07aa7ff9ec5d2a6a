//! What a walk found.

/// What a walk found.
#[derive(Debug)]
pub struct Explored {
    pub(super) situations: usize,
    pub(super) complete: bool,
    pub(super) reached: Vec<String>,
    pub(super) breaches: Vec<Breach>,
}

/// Something that must not happen, and the shortest way to it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Breach {
    /// What is wrong.
    pub what: String,
    /// What came, and what it led to; one line for each message.
    pub path: Vec<String>,
    /// The same as a sequence diagram, for Mermaid.
    pub diagram: String,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.what)?;
        self.path.iter().enumerate().try_for_each(|(n, line)| write!(f, "\n  {}. {line}", n + 1))?;
        write!(f, "\n```mermaid\n{}```", self.diagram)
    }
}

impl Explored {
    /// How many different situations there are.
    pub fn situations(&self) -> usize {
        self.situations
    }

    /// Whether all of them were looked at.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The states that were reached, sorted.
    pub fn states_reached(&self) -> &[String] {
        &self.reached
    }

    /// What must not happen and does.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// Nothing wrong was found, and everything was looked at.
    ///
    /// # Panics
    /// Otherwise, with each breach and the shortest way to it.
    #[track_caller]
    pub fn expect_no_breach(&self) {
        let breaches: Vec<String> = self.breaches.iter().map(ToString::to_string).collect();
        assert!(
            breaches.is_empty(),
            "{} in {} situations:\n{}",
            match breaches.len() {
                1 => "1 breach".to_owned(),
                more => format!("{more} breaches"),
            },
            self.situations,
            breaches.join("\n")
        );
        assert!(self.complete, "only {} situations were looked at: raise `situations_max`", self.situations);
    }
}
