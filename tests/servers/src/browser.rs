//! Chromium, and the program that drives it.

use crate::programs::{install, path};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// What installs both on Debian.
pub const INSTALL_BROWSER: &str = "apt-get install chromium chromium-driver";

/// The installed programs.
#[derive(Debug, Clone)]
pub struct Chromium {
    /// The browser.
    pub browser: PathBuf,
    /// ChromeDriver: a server that speaks WebDriver.
    pub driver: PathBuf,
}

impl Chromium {
    /// The installed programs, if both are installed.
    pub fn find() -> Option<Self> {
        let in_path = |name: &&str| path().map(|folder| folder.join(name)).find(|program| program.is_file());
        let browser = ["chromium", "chromium-browser", "google-chrome"].iter().find_map(in_path)?;
        Some(Self { browser, driver: in_path(&"chromedriver")? })
    }

    /// Installs Debian's packages. Asks before, if somebody is there to ask.
    ///
    /// # Errors
    /// When the packages cannot be installed.
    pub fn install() -> Result<Self> {
        install("Chromium or its driver", INSTALL_BROWSER)?;
        Self::find().context("the packages are installed, but their programs are not in the PATH")
    }
}
