//! Pipelines that look at pictures.

pub(crate) mod classify;
pub(crate) mod clip;
mod input;
mod labels;
mod letterbox;
mod nms;
mod picture;
mod preprocess;
pub(crate) mod yolo;
mod yolo_head;

pub(crate) use yolo_head::is_unmistakably_yolo;
