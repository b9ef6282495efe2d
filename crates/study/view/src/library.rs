//! The study being looked at, and what was read of it last.

use std::collections::VecDeque;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recording::facts::RunStatus;
use recording::hold::is_held;
use store::{StoreError, Study};

use crate::indicators::Indicators;
use crate::waterfall::Waterfall;

/// Runs whose samples stay in memory: zooming and going back and forth must not read the disk again.
const KEPT: usize = 4;

/// The study behind the page.
pub(crate) struct Library {
    study: Mutex<Study>,
    dir: PathBuf,
    runs: Vec<String>,
    indicators: Mutex<Recent<Indicators>>,
    waterfalls: Mutex<Recent<Waterfall>>,
}

impl Library {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let study = Study::open(dir)?;
        let runs = study.plan.runs.iter().map(|r| r.id.clone()).collect();
        Ok(Self {
            study: Mutex::new(study),
            dir: dir.to_owned(),
            runs,
            indicators: Mutex::default(),
            waterfalls: Mutex::default(),
        })
    }

    pub(crate) fn study(&self) -> MutexGuard<'_, Study> {
        locked(&self.study)
    }

    /// Changes whenever a run begins or ends, also by being broken off. Costs one `stat` a run.
    pub(crate) fn version(&self) -> String {
        let mut hasher = DefaultHasher::new();
        is_held(&self.dir).hash(&mut hasher);
        for id in &self.runs {
            self.stamp(id).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    fn stamp(&self, run: &str) -> Option<(i64, i64, u64, u64)> {
        let m = fs::metadata(self.dir.join("runs").join(run).join("run.toml")).ok()?;
        Some((m.mtime(), m.mtime_nsec(), m.size(), m.ino()))
    }

    /// What happened in a run, on the collector's clock.
    pub(crate) fn indicators(&self, run: &str) -> Result<Arc<Indicators>, StoreError> {
        self.recent(&self.indicators, run, |study| Indicators::read(study, run))
    }

    /// What each frame of a run went through.
    pub(crate) fn waterfall(&self, run: &str) -> Result<Arc<Waterfall>, StoreError> {
        self.recent(&self.waterfalls, run, |study| Waterfall::read(study, run))
    }

    /// Closed runs do not change, unless they are made again; one under way is read each time.
    fn recent<T>(
        &self,
        cache: &Mutex<Recent<T>>,
        run: &str,
        read: impl FnOnce(&Study) -> Result<T, StoreError>,
    ) -> Result<Arc<T>, StoreError> {
        let mut hasher = DefaultHasher::new();
        (run, self.stamp(run)).hash(&mut hasher);
        let key = format!("{:016x}", hasher.finish());
        if let Some(held) = locked(cache).get(&key) {
            return Ok(held);
        }
        let study = self.study();
        let closed = study.run(run)?.1.status != RunStatus::Running;
        let made = Arc::new(read(&study)?);
        if closed {
            locked(cache).put(&key, Arc::clone(&made));
        }
        Ok(made)
    }
}

/// A panic while reading leaves nothing half-written here: only caches are behind these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Recent<T>(VecDeque<(String, Arc<T>)>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Recent<T> {
    fn get(&self, key: &str) -> Option<Arc<T>> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| Arc::clone(v))
    }

    fn put(&mut self, key: &str, value: Arc<T>) {
        self.0.retain(|(k, _)| k != key);
        self.0.push_front((key.to_owned(), value));
        self.0.truncate(KEPT);
    }
}
