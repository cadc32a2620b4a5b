//! The registry as it is now, for whoever only looks.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::registry::{Registry, Version};

/// The registry as it is now, and word of every new version. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    registry: Arc<RwLock<Registry>>,
    versions: watch::Receiver<Version>,
}

/// Who changes it.
#[derive(Debug)]
pub(crate) struct Publisher {
    registry: Arc<RwLock<Registry>>,
    versions: watch::Sender<Version>,
}

impl Current {
    /// Begins with `registry`.
    pub(crate) fn begin(registry: Registry) -> (Self, Publisher) {
        let (sender, versions) = watch::channel(registry.version());
        let registry = Arc::new(RwLock::new(registry));
        (Self { registry: Arc::clone(&registry), versions }, Publisher { registry, versions: sender })
    }

    /// Looks at the registry, under a lock that is held for an in-memory change and never across an await or a disk write.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells of every new version; a slow reader sees the latest only.
    #[must_use]
    pub(crate) fn versions(&self) -> watch::Receiver<Version> {
        self.versions.clone()
    }
}

impl Publisher {
    /// Looks at the registry.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Registry) -> T) -> T {
        look(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the registry, and tells of its version when it is changed.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut registry);
        let version = registry.version();
        drop(registry);
        self.versions.send_replace(version);
    }
}
