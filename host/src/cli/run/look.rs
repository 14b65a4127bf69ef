//! A picture that a model looks at: boxes, classes or a vector.

use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Params, Part, Request, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::{self, malformed};
use super::{Error, files};
use crate::cli::print::Printer;
use crate::engine::{Caller, JobEvent, LoadedModel};
use crate::media::{Mark, MediaLimits, Picture, decode_image, draw_boxes, encode_png};

/// A picture to look at, read and decoded.
pub(super) struct Look {
    picture: Picture,
    /// Where to draw the boxes.
    drawing: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Detections {
    detections: Vec<Detection>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Detection {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    confidence: f32,
    class_id: u32,
    class_name: String,
}

#[derive(Debug, Deserialize)]
struct Classes {
    classes: Vec<Class>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Class {
    class_id: u32,
    class_name: String,
    score: f32,
}

impl Look {
    /// Reads the picture.
    ///
    /// # Errors
    /// It cannot be read, or the drawing would not be a PNG file.
    pub(super) fn new(path: &Path, drawing: Option<PathBuf>, limits: &MediaLimits) -> Result<Self, Error> {
        if drawing.as_deref().is_some_and(|drawing| files::extension(drawing) != "png") {
            return Err(Error::Usage("boxes are drawn into a PNG file: give -o a name that ends in .png"));
        }
        let picture = decode_image(&files::read(path)?, limits);
        let picture = picture.map_err(|source| Error::Media { path: path.to_owned(), source })?;
        Ok(Self { picture, drawing })
    }

    /// Lets the model look, and prints what it sees. A model that can do several things does the first of detecting,
    /// classifying and embedding.
    pub(super) async fn run(self, model: &LoadedModel, json: bool) -> Result<(), Error> {
        let tasks = [Task::Detect, Task::Classify, Task::EmbedImage];
        let task = tasks.into_iter().find(|task| model.supports(task)).unwrap_or(Task::Detect);
        model.require(&task)?;
        if self.drawing.is_some() && task != Task::Detect {
            return Err(Error::Usage("-o draws the boxes of a model that detects, which this one does not"));
        }
        let Picture { width, height, data } = self.picture.clone();
        let parts = vec![Part::Rgb8 { width, height, data }];
        let request = Request { task: task.clone(), params: Params::default(), parts, deadline_ms: None };
        let events = answer::collect(model.submit(request, Caller::default())?).await?;
        let mut document = Map::new();
        document.insert("model".into(), model.id().into());
        document.insert("plugin".into(), model.plugin().into());
        document.insert("task".into(), task.name().into());
        document.insert("width".into(), width.into());
        document.insert("height".into(), height.into());
        let mut printer = Printer::stdout();
        for event in events {
            match event {
                JobEvent::Detections(text) => {
                    let mut found = serde_json::from_str::<Detections>(&text).map_err(malformed)?.detections;
                    found.iter_mut().for_each(|d| rename(model, d.class_id, &mut d.class_name));
                    self.draw(&found)?;
                    if !json {
                        print_boxes(&mut printer, &found)?;
                    }
                    document.insert("detections".into(), json!(found));
                }
                JobEvent::Result { json: text, .. } => {
                    let mut classes = serde_json::from_str::<Classes>(&text).map_err(malformed)?.classes;
                    classes.iter_mut().for_each(|c| rename(model, c.class_id, &mut c.class_name));
                    if !json {
                        let row = |c: &Class| [c.class_name.clone(), format!("{:.3}", c.score)];
                        printer.table(["CLASS", "SCORE"], &classes.iter().map(row).collect::<Vec<_>>())?;
                    }
                    document.insert("classes".into(), json!(classes));
                }
                JobEvent::Vector { values, .. } => {
                    let vector = json!(values);
                    if !json {
                        printer.line(&vector)?;
                    }
                    document.insert("embedding".into(), vector);
                }
                _ => {}
            }
        }
        if json { printer.json(&Value::Object(document)) } else { Ok(()) }
    }

    fn draw(&self, found: &[Detection]) -> Result<(), Error> {
        let Some(path) = &self.drawing else { return Ok(()) };
        let mut picture = self.picture.clone();
        let mark = |d: &Detection| Mark {
            x: d.x,
            y: d.y,
            width: d.width,
            height: d.height,
            label: format!("{} {:.0}%", d.class_name, d.confidence * 100.0),
            group: d.class_id as usize,
        };
        // The best one on top.
        draw_boxes(&mut picture, &found.iter().rev().map(mark).collect::<Vec<_>>());
        let png = encode_png(&picture).map_err(|source| Error::Media { path: path.clone(), source })?;
        files::write(path, &png)
    }
}

fn print_boxes<W: std::io::Write>(printer: &mut Printer<W>, found: &[Detection]) -> Result<(), Error> {
    let row = |d: &Detection| {
        let [x, y, width, height] = [d.x, d.y, d.width, d.height].map(|pixels| format!("{pixels:.0}"));
        [d.class_name.clone(), format!("{:.2}", d.confidence), x, y, width, height]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    printer.table(["CLASS", "CONFIDENCE", "X", "Y", "WIDTH", "HEIGHT"], &rows)
}

/// The operator's name for a class wins over the model's own.
fn rename(model: &LoadedModel, class_id: u32, name: &mut String) {
    if let Some(label) = model.info().labels.get(class_id as usize) {
        name.clone_from(label);
    }
}
