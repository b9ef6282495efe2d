//! The page in a real browser: Chromium, headless, driven by chromedriver.
//!
//! Looks at the study in `TRIPTYCH_STUDY`, or at a made-up one, and leaves pictures in `target/screenshots`.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use recording::facts::RunStatus;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use store::Study;
use system_tests::{PATIENCE, Running, peer, target_folder};

/// The page's server, in this process.
struct Page {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Page {
    fn of(study: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let options = view::ViewOptions {
            study: study.to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            token: None,
            stop: Arc::clone(&stop),
        };
        let (ready, address) = channel();
        let thread = std::thread::spawn(move || view::serve(options, |a| ready.send(a).unwrap()).unwrap());
        let address = address.recv_timeout(PATIENCE).expect("the page is ready");
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// chromedriver and its Chromium; both are gone after a drop, however the test ended.
struct Browser {
    port: u16,
    client: Option<Client>,
    profile: tempfile::TempDir,
    _driver: Running,
}

impl Browser {
    /// `None`, with the reason on stderr, where there is no Chromium.
    async fn start() -> anyhow::Result<Option<Self>> {
        let (Some(driver), Some(chromium)) =
            (peer("chromedriver", "chromium-driver"), peer("chromium", "chromium"))
        else {
            return Ok(None);
        };
        let mut command = Command::new(driver);
        command.args(["--port=0", "--log-level=SEVERE"]).stderr(Stdio::null());
        let driver = Running::spawn_reading(command)?;
        let deadline = Instant::now() + PATIENCE;
        let port = loop {
            let line = driver.line(deadline)?;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').parse()?;
            }
        };
        let profile = tempfile::tempdir()?;
        let mut arguments = vec![
            "--headless=new".to_owned(),
            "--disable-gpu".into(),
            "--hide-scrollbars".into(),
            "--window-size=1280,1500".into(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        if rustix::process::geteuid().is_root() {
            // Chromium's sandbox refuses to run as root, as tests in a container do.
            arguments.push("--no-sandbox".into());
        }
        let capabilities = json!({
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { bail!("capabilities are an object") };
        let mut browser = Self { port, client: None, profile, _driver: driver };
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .context("chromedriver starts no Chromium")?;
        browser.client = Some(client);
        Ok(Some(browser))
    }

    fn client(&self) -> &Client {
        self.client.as_ref().expect("is there until the end")
    }

    async fn eval(&self, script: &str) -> anyhow::Result<Value> {
        Ok(self.client().execute(script, Vec::new()).await?)
    }

    /// Asks the page until it is so.
    async fn until(&self, what: &str, script: &str) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.eval(script).await? == Value::Bool(true) {
                return Ok(());
            }
            if Instant::now() > end {
                let text = self.eval("return document.body.innerText.slice(0, 600)").await?;
                bail!("waited in vain for {what}; the page says: {text}\n{:?}", self.complaints().await?);
            }
        }
    }

    /// What Chromium's console holds: exceptions, refused resources, failed requests.
    async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let session = self.client().session_id().await?.context("a session")?;
        let body = json!({ "type": "browser" }).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST /session/{session}/se/log HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        // chromedriver keeps the connection open whatever it is asked.
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(answer.read_line(&mut line)? > 0, "chromedriver closed the connection");
            if let Some((_, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body)?;
        let log: Value = serde_json::from_slice(&body)?;
        let entries = log["value"].as_array().context("a log")?;
        Ok(entries.iter().map(|e| format!("{}: {}", e["level"], e["message"])).collect())
    }

    /// The page prints no value that is none.
    async fn has_no_holes(&self) -> anyhow::Result<()> {
        let found = self.eval(HOLES).await?;
        ensure!(found == json!([]), "the page shows {found}");
        Ok(())
    }

    /// A picture of the page, as much of it as is worth showing at once.
    async fn picture(&self, name: &str) -> anyhow::Result<PathBuf> {
        let height =
            self.eval("return document.documentElement.scrollHeight").await?.as_u64().unwrap_or(1_500);
        self.client().set_window_size(1_280, (height as u32 + 20).clamp(600, 1_600)).await?;
        self.eval("return new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))").await?;
        let folder = target_folder().join("screenshots");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{name}.png"));
        fs::write(&path, self.client().screenshot().await?)?;
        self.client().set_window_size(1_280, 1_500).await?;
        Ok(path)
    }

    /// Number of colours and a hash of all pixels of the canvases below a selector.
    async fn pixels(&self, selector: &str) -> anyhow::Result<(u64, String)> {
        let script = format!(
            "{READ} const seen = new Set(); let hash = 7;
             for (const canvas of document.querySelectorAll('{selector} canvas')) {{
               const data = read(canvas);
               for (const word of new Uint32Array(data.buffer)) {{ seen.add(word); hash = (Math.imul(hash, 31) + word) | 0; }}
             }}
             return [seen.size, String(hash)];"
        );
        let answer = self.eval(&script).await?;
        Ok((answer[0].as_u64().context("a count")?, answer[1].as_str().context("a hash")?.to_owned()))
    }

    async fn mouse(&self, x: i64, y: i64, click: bool) -> anyhow::Result<()> {
        let mut actions = MouseActions::new("mouse".into()).then(PointerAction::MoveTo {
            duration: Some(Duration::ZERO),
            x: x as f64,
            y: y as f64,
        });
        if click {
            actions = actions
                .then(PointerAction::Down { button: MOUSE_BUTTON_LEFT })
                .then(PointerAction::Up { button: MOUSE_BUTTON_LEFT });
        }
        Ok(self.client().perform_actions(actions).await?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Only the Chromium of this test has this profile on its command line.
        let mark = format!("--user-data-dir={}", self.profile.path().display());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_ours = command.windows(mark.len()).any(|w| w == mark.as_bytes());
            let id = entry.file_name().to_str().and_then(|n| n.parse().ok()).and_then(Pid::from_raw);
            if let (true, Some(id)) = (is_ours, id) {
                let _ = kill_process(id, Signal::KILL);
            }
        }
    }
}

/// Runs a test in a browser, and closes the browser whether or not it succeeds.
fn in_browser(test: impl AsyncFnOnce(&Browser) -> anyhow::Result<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(mut browser) = Browser::start().await.unwrap() else { return };
        let result = test(&browser).await;
        if let Some(client) = browser.client.take() {
            let _ = client.close().await;
        }
        drop(browser);
        if let Err(error) = result {
            panic!("{error:?}");
        }
    });
}

fn workspace_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The study to look at; a made-up one lies in the folder that is returned with it.
fn study() -> (PathBuf, Option<tempfile::TempDir>) {
    if let Some(study) = std::env::var_os("TRIPTYCH_STUDY") {
        // Tests are run in their package's folder; the person names it from the workspace's.
        return (workspace_folder().join(study), None);
    }
    let dir = tempfile::tempdir().unwrap();
    store::synthetic::write(dir.path(), store::synthetic::Recipe::default()).unwrap();
    (dir.path().to_owned(), Some(dir))
}

/// Reads a copy of a canvas: the page's own are not made for reading, and Chromium would say so.
const READ: &str = "
  const read = (canvas) => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return copy.getImageData(0, 0, canvas.width, canvas.height).data;
  };";

/// A pixel in the middle of the tallest bar of the first colour, in the coordinates of the window.
const A_BAR: &str = "
  const canvas = document.querySelector('#matrix-plot canvas');
  const { width, height } = canvas;
  const data = read(canvas);
  const vivid = (i) => data[i + 3] > 100 && Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]) > 80;
  let best = { rows: [] };
  for (let x = 0; x < width; x += 3) {
    const rows = [];
    for (let y = 0; y < height; y += 1) if (vivid(4 * (y * width + x))) rows.push(y);
    if (rows.length > best.rows.length) best = { x, rows };
  }
  const box = canvas.getBoundingClientRect();
  return [Math.round(box.left + best.x * box.width / width), Math.round(box.top + best.rows[best.rows.length >> 1] * box.height / height)];";

/// Texts that a page shows where it has nothing to show.
const HOLES: &str = r"
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode())
    if (/\b(null|undefined|NaN)\b|\[object /.test(walker.currentNode.data)) found.push(walker.currentNode.data);
  return found;";

const NO_OVERFLOW: &str = "return document.documentElement.scrollWidth <= innerWidth";

#[test]
fn a_study_can_be_looked_at_from_its_matrix_down_to_a_frame() {
    let (dir, made_up) = study();
    let plan = Study::open(&dir).unwrap();
    let first = plan.plan.subject.responses[0].name.clone();
    let other = plan.plan.subject.responses.iter().find(|r| r.name == "guest_cpu").unwrap().name.clone();
    let runs = plan.runs().unwrap();
    let complete =
        runs.iter().find(|r| r.facts.status == RunStatus::Complete).expect("a complete run").clone();
    let page = Page::of(&dir);
    in_browser(async |browser| {
        matrix(browser, &page, &first, &other).await?;
        picks_a_run(browser).await?;
        run(browser, &page, &complete.facts.id).await?;
        if made_up.is_some() {
            disturbed(browser, &page, &runs[store::synthetic::DISTURBED].facts.id).await?;
        }
        let complaints = browser.complaints().await?;
        ensure!(complaints.is_empty(), "the console holds {complaints:#?}");
        Ok(())
    });
}

async fn matrix(browser: &Browser, page: &Page, first: &str, other: &str) -> anyhow::Result<()> {
    browser.client().goto(&format!("http://{}/", page.address)).await?;
    let shows = |name: &str| format!("return document.documentElement.dataset.plot === 'matrix:{name}'");
    browser.until("the first plot", &shows(first)).await?;
    let load = browser
        .eval("return performance.getEntriesByName('first-plot')[0]?.startTime ?? performance.now()")
        .await?;
    eprintln!("first plot after {:.0} ms", load.as_f64().unwrap_or(f64::NAN));
    let elsewhere = browser
        .eval("return performance.getEntriesByType('resource').map((r) => r.name).filter((n) => !n.startsWith(location.origin))")
        .await?;
    ensure!(elsewhere == json!([]), "asked for things from elsewhere: {elsewhere}");
    let (colours, before) = browser.pixels("#matrix-plot").await?;
    ensure!(colours > 5, "only {colours} colours: nothing is drawn");

    let choice = browser.client().find(Locator::Id("pick-y")).await?;
    choice.select_by_value(other).await?;
    browser.until("the other indicator", &shows(other)).await?;
    let (colours, bars) = browser.pixels("#matrix-plot").await?;
    ensure!(colours > 5 && bars != before, "another indicator draws another picture");
    browser.has_no_holes().await?;
    browser.picture("matrix").await?;

    browser.client().find(Locator::Css("button[data-value=lines]")).await?.click().await?;
    browser.until("lines in the address", "return location.hash.includes('marks=lines')").await?;
    ensure!(browser.pixels("#matrix-plot").await?.1 != bars, "lines are no bars");
    browser.client().find(Locator::Css("button[data-value=bars]")).await?.click().await?;

    browser.client().set_window_size(800, 1_000).await?;
    browser.until("no overflow at 800 px", NO_OVERFLOW).await?;
    browser.client().set_window_size(1_280, 1_500).await?;
    browser.until("the width to be back", "return innerWidth > 1200").await
}

/// The run that is flagged in a made-up study: in the matrix, in the tables, above its timeline.
async fn disturbed(browser: &Browser, page: &Page, id: &str) -> anyhow::Result<()> {
    browser.client().goto(&format!("http://{}/#/?y=latency_p50", page.address)).await?;
    browser
        .until("the matrix", "return document.documentElement.dataset.plot === 'matrix:latency_p50'")
        .await?;
    let told = [
        ("the header counts it", "/△ 1 disturbed/.test(document.getElementById('header').innerText)"),
        (
            "the legend names the mark",
            "/triangles: runs disturbed/.test(document.querySelector('.legend').innerText)",
        ),
        (
            "the table of runs says why",
            "/△ disturbed.*others on host/s.test(document.getElementById('runs').innerText)",
        ),
    ];
    for (what, script) in told {
        browser.until(what, &format!("return {script}")).await?;
    }
    browser.picture("disturbed-matrix").await?;
    browser.client().goto(&format!("http://{}/#/run/{id}", page.address)).await?;
    browser.until("the run", &format!("return document.documentElement.dataset.plot === 'run:{id}'")).await?;
    let reason = "return /others on host, \\d+ % of the time/.test(document.getElementById('disturbances')?.innerText ?? '')";
    browser.until("the reason above the timeline", reason).await?;
    browser.picture("disturbed-run").await.map(drop)
}

async fn picks_a_run(browser: &Browser) -> anyhow::Result<()> {
    browser.eval("scrollTo(0, 0)").await?;
    browser.eval("return new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))").await?;
    let place = browser.eval(&format!("{READ}{A_BAR}")).await?;
    let (x, y) = (place[0].as_i64().context("a bar")?, place[1].as_i64().context("a bar")?);
    browser.mouse(x, y, false).await?;
    browser
        .until(
            "the note beside a bar",
            "return /95 % interval/.test(document.querySelector('.tip')?.innerText ?? '')",
        )
        .await?;
    browser.mouse(x, y, true).await?;
    browser.until("the point in the address", "return /point=\\d/.test(location.hash)").await?;
    browser.client().find(Locator::Css("#runs a[href*='/run/']")).await?.click().await?;
    browser.until("the run", "return document.documentElement.dataset.plot.startsWith('run:')").await
}

async fn run(browser: &Browser, page: &Page, id: &str) -> anyhow::Result<()> {
    browser.client().goto(&format!("http://{}/#/run/{id}", page.address)).await?;
    browser.until("the run", &format!("return document.documentElement.dataset.plot === 'run:{id}'")).await?;
    for part in ["#panel-guest", "#panel-host", "#panel-client", "#waterfall"] {
        let (colours, _) = browser.pixels(part).await?;
        ensure!(colours > 4, "{part} has only {colours} colours: nothing is drawn");
    }
    browser.has_no_holes().await?;
    browser.picture("run").await?;

    browser.eval("scrollTo(0, 0)").await?;
    let before = browser.pixels("#panel-guest").await?.1;
    let place = browser
        .eval("const b = document.querySelector('#panel-guest canvas').getBoundingClientRect(); return [Math.round(b.left + b.width / 2), Math.round(b.top + b.height / 3)]")
        .await?;
    browser.mouse(place[0].as_i64().unwrap(), place[1].as_i64().unwrap(), false).await?;
    browser
        .until(
            "values at the cross-hair in every panel",
            "return ['guest', 'host', 'client'].every((p) => /\\d/.test(document.querySelector(`#panel-${p} output`)?.textContent ?? ''))",
        )
        .await?;
    browser.client().find(Locator::Css("button[title='Zoom in']")).await?.click().await?;
    browser.until("the interval in the address", "return /from=\\d/.test(location.hash)").await?;
    ensure!(browser.pixels("#panel-guest").await?.1 != before, "half of the run is another picture");
    browser.client().set_window_size(800, 1_000).await?;
    browser.until("no overflow at 800 px", NO_OVERFLOW).await?;
    browser.client().find(Locator::Id("back")).await?.click().await?;
    browser
        .until("the matrix again", "return document.documentElement.dataset.plot.startsWith('matrix:')")
        .await
}

#[test]
fn a_point_with_one_run_is_shown_without_holes() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = store::synthetic::Recipe { repeats: 1, failed: 0, ..Default::default() };
    store::synthetic::write(dir.path(), recipe).unwrap();
    let id = Study::open(dir.path()).unwrap().runs().unwrap()[0].facts.id.clone();
    let page = Page::of(dir.path());
    in_browser(async |browser| {
        browser.client().goto(&format!("http://{}/#/run/{id}", page.address)).await?;
        let shown = format!("return document.documentElement.dataset.plot === 'run:{id}'");
        browser.until("the run", &shown).await?;
        browser.has_no_holes().await
    });
}

#[test]
fn what_is_wrong_is_said_on_the_page() {
    let (dir, _made_up) = study();
    let page = Page::of(&dir);
    in_browser(async |browser| {
        browser.client().goto(&format!("http://{}/#/run/r9999-p00-k0", page.address)).await?;
        let said =
            "return /no run 'r9999-p00-k0'/.test(document.querySelector('[role=alert]')?.innerText ?? '')";
        browser.until("the reason", said).await
    });
}
