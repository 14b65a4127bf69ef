//! What hooks see and return, in terms that no version of the WIT package changes.

use pajamas_plugin_api::Dtype;
use serde::Serialize;

/// The request that a call belongs to.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    /// The task's name.
    pub task: String,
    /// The model or route as the client named it.
    pub model: String,
    /// Identifies the request.
    pub request_id: String,
    /// The API key's name; empty without one.
    pub caller: String,
}

/// What a hook says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Its name, which need not be the operator's.
    #[serde(rename = "describes_itself_as")]
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub summary: String,
}

/// A piece of a request's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message that it replaces, by its number in what the host passed.
    pub source: Option<u32>,
    /// Who speaks, or what the text is for.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A picture: RGB, 8 bits a channel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}

/// Where the point (x, y) of a new picture lies in the old one, in pixels: at `(xx x + xy y + x0, yx x + yy y + y0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the formula above names them all")]
pub struct Placement {
    pub xx: f64,
    pub xy: f64,
    pub x0: f64,
    pub yx: f64,
    pub yy: f64,
    pub y0: f64,
}

/// Sound with one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// Samples per second.
    pub sample_rate_hz: u32,
    /// The samples.
    pub samples: Vec<f32>,
}

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// The input's name.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// The dimensions.
    pub shape: Vec<i64>,
    /// The elements, row-major, little-endian.
    pub data: Vec<u8>,
}

/// What a picture or sound for tensors came as.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorSource {
    /// A picture.
    Picture(Picture),
    /// Sound.
    Sound(Sound),
}

/// What a hook decides.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<T> {
    /// All stays as it is.
    Pass,
    /// This instead.
    Change(T),
    /// Not at all.
    Reject(String),
}

impl Placement {
    /// A point of the new picture in the old one.
    #[must_use]
    pub fn map(&self, x: f64, y: f64) -> (f64, f64) {
        (self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0)
    }

    /// First `self`, then `older`: from the newest picture to the oldest.
    #[must_use]
    pub fn then(&self, older: &Self) -> Self {
        let (x0, y0) = older.map(self.x0, self.y0);
        Self {
            xx: older.xx * self.xx + older.xy * self.yx,
            xy: older.xx * self.xy + older.xy * self.yy,
            x0,
            yx: older.yx * self.xx + older.yy * self.yx,
            yy: older.yx * self.xy + older.yy * self.yy,
            y0,
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        [self.xx, self.xy, self.x0, self.yx, self.yy, self.y0].iter().all(|value| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_compose() {
        let half = Placement { xx: 2.0, xy: 0.0, x0: 0.0, yx: 0.0, yy: 2.0, y0: 0.0 };
        // A picture of height 10, turned by 90° clockwise.
        let turned = Placement { xx: 0.0, xy: 1.0, x0: 0.0, yx: -1.0, yy: 0.0, y0: 10.0 };
        let both = half.then(&turned);
        let (x, y) = half.map(1.0, 3.0);
        assert_eq!(both.map(1.0, 3.0), turned.map(x, y));
        assert_eq!(both.map(1.0, 3.0), (6.0, 8.0));
    }
}
