//! `run`: a conversation with a model in the terminal, or one picture, sound or spoken text, by an engine in this process.

mod answer;
mod conversation;
mod files;
mod listen;
mod look;
mod prompt;
mod say;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{GenerateParams, Task};
use serde_json::json;
use uuid::Uuid;

use self::answer::Answer;
use self::conversation::Conversation;
use self::listen::Listen;
use self::look::Look;
use self::say::Say;
use super::print::Printer;
use super::{Error, block_on, resolve};
use crate::config::Config;
use crate::engine::{Caller, Engine, LoadedModel};
use crate::media::MediaLimits;

/// Temperature of a conversation in the terminal unless one is asked for: what llama.cpp's programs take. At 1 over the whole
/// vocabulary, which is the API's default, small models lose themselves in noise.
const TEMPERATURE: f32 = 0.8;
/// Tokens less probable than this part of the most probable one are never drawn there, as in llama.cpp's programs.
const MIN_P: f32 = 0.05;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// A model's name, or the path of its file or folder
    #[arg(value_name = "MODEL")]
    model: String,
    /// What to ask; without it, standard input is the question, or a terminal becomes a conversation
    prompt: Option<String>,
    /// Look at a picture: boxes, classes or a vector, whichever the model makes
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["audio", "prompt", "system", "temperature", "max_tokens", "seed"])]
    image: Option<PathBuf>,
    /// Write down what is said in a file of sound
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["prompt", "system", "output", "temperature", "max_tokens", "seed"])]
    audio: Option<PathBuf>,
    /// Speak the PROMPT into a file (.wav, .flac, .opus, .pcm), or draw the boxes of a picture into one (.png)
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["system", "temperature", "max_tokens", "seed"])]
    output: Option<PathBuf>,
    /// Whose voice speaks [default: the model's first]
    #[arg(long, value_name = "NAME", requires = "output", conflicts_with = "image")]
    voice: Option<String>,
    /// Instructions that hold for the whole conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// 0 always takes the most probable token, up to 2 [default: 0.8]
    #[arg(long, value_name = "NUMBER", value_parser = temperature)]
    temperature: Option<f32>,
    /// Most tokens of an answer [default: until the context is full]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// The same seed gives the same answer [default: a random one]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

/// What to do with the model.
enum Work {
    Look(Look),
    Listen(Listen),
    Say(Say),
    /// Answer a prompt, or whoever sits at the terminal.
    Talk(Option<String>),
}

pub(super) fn run(mut config: Config, args: RunArgs, json: bool) -> Result<(), Error> {
    let work = Work::new(&args, &config.limits.media, json)?;
    let id = resolve::model(&args.model, &mut config)?.id;
    block_on(async {
        let engine = Engine::start(&config)?;
        let result = work.run(&engine, &id, &args, json).await;
        engine.shutdown(Duration::ZERO).await;
        result
    })
}

impl Work {
    /// Reads all that the arguments name, so that what is wrong with it is said before a model is loaded.
    fn new(args: &RunArgs, limits: &MediaLimits, json: bool) -> Result<Self, Error> {
        if let Some(image) = &args.image {
            return Look::new(image, args.output.clone(), limits).map(Self::Look);
        }
        if let Some(audio) = &args.audio {
            return Listen::new(audio, limits).map(Self::Listen);
        }
        let prompt = match &args.prompt {
            Some(prompt) => Some(prompt.clone()),
            None => prompt::piped()?,
        };
        if prompt.as_deref().is_some_and(|prompt| prompt.trim().is_empty()) {
            return Err(Error::Usage("the prompt is empty: ask something"));
        }
        if let Some(output) = &args.output {
            let text = prompt.ok_or(Error::Usage("-o needs a PROMPT to speak, or one on standard input"))?;
            return Say::new(text, args.voice.clone(), output.clone()).map(Self::Say);
        }
        if json && prompt.is_none() {
            return Err(Error::Usage("--json prints one answer: give it a PROMPT, or one on standard input"));
        }
        Ok(Self::Talk(prompt))
    }

    async fn run(self, engine: &Engine, id: &str, args: &RunArgs, json: bool) -> Result<(), Error> {
        let model = or_interrupt(async { Ok(engine.acquire(id).await?) }).await?;
        match self {
            Self::Look(look) => or_interrupt(look.run(&model, json)).await,
            Self::Listen(listen) => or_interrupt(listen.run(&model, json)).await,
            Self::Say(say) => or_interrupt(say.run(&model, json)).await,
            Self::Talk(prompt) => {
                model.require(&Task::Generate)?;
                let conversation = Conversation::new(model.info(), args.system.as_deref(), params(args))?;
                match prompt {
                    Some(prompt) => answer_once(&model, conversation, prompt, json).await,
                    None => talk(engine, &model, conversation).await,
                }
            }
        }
    }
}

async fn answer_once(
    model: &LoadedModel,
    mut conversation: Conversation,
    prompt: String,
    json: bool,
) -> Result<(), Error> {
    let mut printer = Printer::stdout();
    let show = |text: &str| if json { Ok(()) } else { printer.piece(text) };
    let answer = or_interrupt(ask(model, &mut conversation, prompt, show)).await?;
    if json {
        return printer.json(&json!({
            "model": model.id(),
            "plugin": model.plugin(),
            "seed": conversation.seed(),
            "text": answer.text,
            "finish_reason": answer.finish,
            "usage": answer.usage,
            "first_token_ms": answer.first_token.as_millis() as u64,
            "tokens_per_second": (answer.tokens_per_second() * 10.0).round() / 10.0,
        }));
    }
    printer.line("")?;
    prompt::note(&answer.to_string());
    Ok(())
}

/// Questions from the terminal until it ends. Ctrl-C stops an answer, and between answers the conversation.
async fn talk(engine: &Engine, model: &LoadedModel, mut conversation: Conversation) -> Result<(), Error> {
    prompt::note(&format!(
        "{} by {}; /clear forgets the conversation, Ctrl-D ends it",
        model.id(),
        model.plugin()
    ));
    let mut printer = Printer::stdout();
    while let Some(line) = or_interrupt(prompt::ask()).await? {
        let question = match line.trim() {
            "" => continue,
            "/clear" => {
                conversation.clear();
                continue;
            }
            question => question.to_owned(),
        };
        let answer = or_interrupt(async {
            // Loads the model again if its plugin has crashed since.
            let model = engine.acquire(model.id()).await?;
            ask(&model, &mut conversation, question, |text| printer.piece(text)).await
        })
        .await;
        printer.line("")?;
        match answer {
            Ok(answer) => prompt::note(&answer.to_string()),
            Err(Error::Interrupted) => prompt::note("interrupted"),
            // Such as a conversation that has become too long: /clear helps, and the model stays loaded.
            Err(error @ (Error::Engine(_) | Error::Template(_))) => prompt::note(&crate::error_chain(&error)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Asks one question. It stays in the conversation only with its answer.
async fn ask(
    model: &LoadedModel,
    conversation: &mut Conversation,
    question: String,
    show: impl FnMut(&str) -> Result<(), Error>,
) -> Result<Answer, Error> {
    let started = Instant::now();
    let request = conversation.request(&question)?;
    let answer = answer::receive(model.submit(request, Caller::default())?, started, show).await?;
    conversation.add(question, answer.text.clone());
    Ok(answer)
}

/// The future's result, unless Ctrl-C comes first: the future is then dropped, which cancels a running job.
async fn or_interrupt<T>(future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        result = future => result,
        caught = tokio::signal::ctrl_c() => match caught {
            Ok(()) => Err(Error::Interrupted),
            Err(source) => Err(Error::System { attempted: "install a signal handler", source }),
        },
    }
}

fn params(args: &RunArgs) -> GenerateParams {
    let defaults = GenerateParams::default();
    GenerateParams {
        max_tokens: args.max_tokens,
        temperature: args.temperature.unwrap_or(TEMPERATURE),
        min_p: MIN_P,
        seed: args.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0),
        ..defaults
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=2.0).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 2".to_owned())
}
