//! An endless stream of text that is no English prose: code, logs, tables, settings and sentences in other languages.

use super::TextStream;
use super::words::{IDEAS, INTRANSITIVE, NO_PASSKEY, PLACES, THINGS, TRAITS, TRANSITIVE};
use crate::rng::Rng;

/// A deterministic generator of UTF-8 text in many formats. Documents follow each other; each keeps its format, its
/// identifiers and its language.
#[derive(Clone, Debug)]
pub struct Formats {
    rng: Rng,
    out: Vec<u8>,
    read: usize,
    doc: Doc,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Braces,
    Indented,
    Log,
    Csv,
    Markdown,
    Json,
    Settings,
    Shell,
    Foreign(usize),
}

#[derive(Clone, Debug)]
struct Doc {
    kind: Kind,
    /// Pieces still to come.
    left: usize,
    /// What it speaks of.
    names: Vec<String>,
    /// Grows from line to line: times, row numbers.
    counter: u64,
    columns: usize,
}

/// Words of a language, and what ends its sentences. Their order is no grammar: what counts is how the bytes look.
struct Language {
    words: &'static str,
    space: &'static str,
    stop: &'static str,
}

const LANGUAGES: [Language; 10] = [
    Language {
        words: "der die das ein eine und oder aber nicht auch schon noch immer wieder über unter zwischen für gegen ohne \
                größer schöner früher später Straße Brücke Fluss Mädchen Tür Schlüssel Bücher Wörter Tage Nächte Häuser \
                sagte ging kam sah hörte fand weiß müssen können dürfen wäre hätte würde",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "le la les un une des et ou mais ne pas déjà encore toujours jamais très plus moins où près après avant \
                été hiver forêt rivière fenêtre clé maître élève français théâtre œuvre cœur garçon leçon être avoir \
                était avait dit alla vit entendit reçut peut-être voilà",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "el la los las un una y o pero no también ya todavía siempre nunca más menos después antes mañana señor \
                niño corazón camión árbol río montaña canción código número llave está había dijo fue vio oyó encontró \
                ¿quién? ¿dónde? según algún ningún",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "i w na z do że nie się jest był była było już jeszcze zawsze nigdy bardzo więcej później wcześniej ulica \
                książka źródło żółty dziewczyna chłopiec łódź morze święto część wziął znalazł usłyszał powiedział może \
                między przez",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "и в на с к что не это был была было уже ещё всегда никогда очень больше позже раньше улица книга ключ \
                дверь окно река город человек девочка мальчик слово день ночь дом сказал пошёл увидел услышал нашёл \
                может между через",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "και το τα ο η οι δεν είναι ήταν πάντα ποτέ πολύ λίγο μετά πριν δρόμος βιβλίο κλειδί πόρτα παράθυρο ποτάμι \
                πόλη άνθρωπος κορίτσι αγόρι λέξη ημέρα νύχτα σπίτι είπε πήγε είδε άκουσε βρήκε ίσως μεταξύ",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "我们 你们 他们 今天 明天 昨天 已经 还是 总是 从来 非常 更多 以后 以前 街道 书 钥匙 门 窗户 河 城市 人 女孩 \
                男孩 词 白天 夜晚 房子 说 去 看见 听见 找到 也许 之间 因为 所以 但是",
        space: "",
        stop: "。",
    },
    Language {
        words: "私は 彼は 今日 明日 昨日 もう まだ いつも とても もっと あとで まえに 道 本 かぎ ドア 窓 川 町 人 女の子 男の子 \
                ことば 昼 夜 家 と言った 行った 見た 聞いた 見つけた たぶん あいだ しかし だから ノート カメラ",
        space: "",
        stop: "。",
    },
    Language {
        words: "في من على إلى هذا هذه كان كانت ليس دائما أبدا جدا أكثر بعد قبل شارع كتاب مفتاح باب نافذة نهر مدينة رجل بنت \
                ولد كلمة يوم ليلة بيت قال ذهب رأى سمع وجد ربما بين ولكن لأن",
        space: " ",
        stop: ". ",
    },
    Language {
        words: "और में से को का की के है था थी नहीं हमेशा कभी बहुत अधिक बाद पहले सड़क किताब चाबी दरवाज़ा खिड़की नदी शहर आदमी \
                लड़की लड़का शब्द दिन रात घर कहा गया देखा सुना मिला शायद बीच लेकिन",
        space: " ",
        stop: "। ",
    },
];

impl TextStream for Formats {
    fn written(&mut self) -> (&mut Vec<u8>, &mut usize) {
        (&mut self.out, &mut self.read)
    }

    fn write(&mut self) {
        self.piece();
    }
}

impl Formats {
    /// The stream of a seed; equal seeds give equal streams.
    pub fn new(seed: u64) -> Self {
        Self::from_rng(Rng::from_parts(&[seed, 0x0066_6f72_6d61_7473]))
    }

    /// A stream of a domain of its own, which training never draws from: for examinations.
    pub fn held(seed: u64) -> Self {
        Self::from_rng(Rng::from_parts(&[seed, 0x0066_6f72_6d61_7473, 0x6865_6c64]))
    }

    /// A stream that begins somewhere inside a document, as a crop of a longer text does.
    pub fn inside(seed: u64) -> Self {
        let mut formats = Self::new(seed);
        formats.piece();
        formats.read = formats.rng.below(formats.out.len());
        formats
    }

    fn from_rng(mut rng: Rng) -> Self {
        let doc = Self::document(&mut rng);
        Self { rng, out: Vec::with_capacity(4096), read: 0, doc }
    }

    fn document(rng: &mut Rng) -> Doc {
        let kind = match rng.below(12) {
            0 | 1 => Kind::Braces,
            2 => Kind::Indented,
            3 | 4 => Kind::Log,
            5 => Kind::Csv,
            6 => Kind::Markdown,
            7 => Kind::Json,
            8 => Kind::Settings,
            9 => Kind::Shell,
            _ => Kind::Foreign(rng.below(LANGUAGES.len())),
        };
        let names = (0..rng.range(6, 20)).map(|_| identifier(rng)).collect();
        Doc {
            kind,
            left: rng.range(4, 30),
            names,
            counter: rng.below(2_000_000_000) as u64,
            columns: rng.range(2, 6),
        }
    }

    /// Writes a function, some lines, a table or a paragraph.
    fn piece(&mut self) {
        if self.doc.left == 0 {
            self.w("\n\n");
            self.doc = Self::document(&mut self.rng);
        }
        self.doc.left -= 1;
        match self.doc.kind {
            Kind::Braces => self.braces(),
            Kind::Indented => self.indented(),
            Kind::Log => self.log(),
            Kind::Csv => self.row(",", ""),
            Kind::Markdown => self.markdown(),
            Kind::Json => self.json(0),
            Kind::Settings => self.settings(),
            Kind::Shell => self.shell(),
            Kind::Foreign(which) => self.foreign(&LANGUAGES[which]),
        }
        self.w("\n");
    }

    fn w(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn name(&mut self) -> String {
        self.rng.pick(&self.doc.names).clone()
    }

    fn one(&mut self, of: &[&'static str]) -> &'static str {
        of[self.rng.below(of.len())]
    }

    /// A number as files hold them: small, large, hexadecimal, with a point.
    fn value(&mut self) -> String {
        let n = self.rng.next_u64();
        match self.rng.below(8) {
            0..3 => (n % 100).to_string(),
            3 => (n % 100_000_000).to_string(),
            4 => format!("0x{:x}", n >> 40),
            5 => format!("{}.{:02}", n % 1000, n >> 8 & 63),
            6 => format!("\"{}\"", self.phrase(2)),
            _ => self.name(),
        }
    }

    fn phrase(&mut self, words: usize) -> String {
        let all: Vec<&str> = (0..words).map(|_| word(&mut self.rng)).collect();
        all.join(" ")
    }

    fn expression(&mut self) -> String {
        let (a, b) = (self.name(), self.value());
        match self.rng.below(5) {
            0 => a,
            1 => b,
            2 => format!("{a} {} {b}", self.one(&["+", "-", "*", "/", "%", "&", "<<"])),
            3 => format!("{a}({b})"),
            _ => format!("{a}.{}", self.name()),
        }
    }

    fn condition(&mut self) -> String {
        let (a, b) = (self.expression(), self.value());
        format!("{a} {} {b}", self.one(&["==", "!=", "<", ">", "<=", ">="]))
    }

    fn braces(&mut self) {
        let (function, argument) = (self.name(), self.name());
        let kind = self.one(&["int", "void", "static u32", "char *", "fn", "function", "public long"]);
        if self.rng.chance(0.5) {
            let about = self.phrase(6);
            self.w(&format!("// {about}\n"));
        }
        self.w(&format!("{kind} {function}({argument}) {{\n"));
        for _ in 0..self.rng.range(2, 7) {
            let (target, from, when) = (self.name(), self.expression(), self.condition());
            let line = match self.rng.below(6) {
                0 => format!("    if ({when}) {{\n        {target} = {from};\n    }}\n"),
                1 => format!("    for (i = 0; i < {target}; i++)\n        {from};\n"),
                2 => format!("    /* {} */\n", self.phrase(5)),
                3 => format!("    return {from};\n"),
                _ => format!("    {target} = {from};\n"),
            };
            self.w(&line);
        }
        self.w("}\n");
    }

    fn indented(&mut self) {
        let (function, argument) = (self.name(), self.name());
        self.w(&format!("def {function}(self, {argument}=None):\n"));
        if self.rng.chance(0.5) {
            let about = self.phrase(7);
            self.w(&format!("    \"\"\"{about}.\"\"\"\n"));
        }
        for _ in 0..self.rng.range(2, 7) {
            let (target, from, when) = (self.name(), self.expression(), self.condition());
            let line = match self.rng.below(5) {
                0 => format!("    if {when}:\n        {target} = {from}\n"),
                1 => format!("    for {target} in {from}:\n        print({target})\n"),
                2 => format!("    # {}\n", self.phrase(5)),
                _ => format!("    {target} = {from}\n"),
            };
            self.w(&line);
        }
        let result = self.name();
        self.w(&format!("    return {result}\n"));
    }

    fn log(&mut self) {
        for _ in 0..self.rng.range(2, 8) {
            self.doc.counter += self.rng.below(400) as u64;
            let t = self.doc.counter;
            let (day, hour, minute, second) = (1 + t / 86400 % 28, t / 3600 % 24, t / 60 % 60, t % 60);
            let stamp = match self.doc.columns {
                2 => format!("[{t}.{:06}]", self.rng.below(1_000_000)),
                3 => format!("Mar {day:2} {hour:02}:{minute:02}:{second:02}"),
                _ => format!("2024-05-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            };
            let (who, text, value) = (self.name(), self.phrase(4), self.value());
            let level = self.one(&["INFO", "DEBUG", "WARN", "ERROR", "TRACE"]);
            let line = match self.rng.below(4) {
                0 => format!("{stamp} {level} {who}: {text} id={value}\n"),
                1 => format!("{stamp} {level} [{who}] {text} took {} ms\n", self.rng.below(5000)),
                2 => format!(
                    "10.{}.{}.{} - - {stamp} \"GET /{who}/{} HTTP/1.1\" 200 {}\n",
                    self.rng.below(256),
                    self.rng.below(256),
                    self.rng.below(256),
                    self.name(),
                    self.rng.below(100_000)
                ),
                _ => format!("{stamp} {who}[{}]: {text}\n", self.rng.below(32768)),
            };
            self.w(&line);
        }
    }

    /// A row of a table.
    fn row(&mut self, between: &str, edge: &str) {
        self.doc.counter += 1;
        let number = self.doc.counter % 100_000;
        self.w(edge);
        self.w(&number.to_string());
        for _ in 0..self.doc.columns {
            let cell = if self.rng.chance(0.5) { self.value() } else { self.phrase(1) };
            self.w(between);
            self.w(&cell);
        }
        self.w(edge);
    }

    fn markdown(&mut self) {
        let heading = self.phrase(3);
        self.w(&format!("## {heading}\n\n"));
        self.w(&"| n ".repeat(self.doc.columns + 1));
        self.w("|\n");
        self.w(&"|---".repeat(self.doc.columns + 1));
        self.w("|\n");
        for _ in 0..self.rng.range(2, 7) {
            self.row(" | ", "|");
            self.w("\n");
        }
    }

    fn json(&mut self, depth: usize) {
        let indent = "  ".repeat(depth + 1);
        self.w("{\n");
        let fields = self.rng.range(2, 6);
        for i in 0..fields {
            let key = self.name();
            self.w(&format!("{indent}\"{key}\": "));
            if depth < 2 && self.rng.chance(0.25) {
                self.json(depth + 1);
            } else {
                let value = match self.rng.below(4) {
                    0 => format!("[{}, {}]", self.rng.below(1000), self.rng.below(1000)),
                    1 => self.one(&["true", "false", "null"]).to_owned(),
                    2 => format!("\"{}\"", self.phrase(2)),
                    _ => self.rng.below(10_000_000).to_string(),
                };
                self.w(&value);
            }
            self.w(if i + 1 < fields { ",\n" } else { "\n" });
        }
        self.w(&"  ".repeat(depth));
        self.w("}");
    }

    fn settings(&mut self) {
        let section = self.name();
        self.w(&format!("[{section}]\n"));
        for _ in 0..self.rng.range(2, 7) {
            let (key, value) = (self.name(), self.value());
            let line = if self.rng.chance(0.2) {
                format!("# {}\n", self.phrase(6))
            } else {
                format!("{key} = {value}\n")
            };
            self.w(&line);
        }
    }

    fn shell(&mut self) {
        let command =
            self.one(&["ls -l", "grep -rn", "git commit -m", "find .", "make", "tar xzf", "curl -s", "cat"]);
        let (argument, count) = (self.name(), self.rng.range(1, 5));
        self.w(&format!("$ {command} {argument}\n"));
        for _ in 0..count {
            let (path, text) = (self.name(), self.phrase(4));
            let line = format!("./{path}/{}.txt:{}: {text}\n", self.name(), self.rng.below(900));
            self.w(&line);
        }
    }

    fn foreign(&mut self, language: &Language) {
        for _ in 0..self.rng.range(2, 6) {
            let words: Vec<&str> = language.words.split_whitespace().collect();
            for i in 0..self.rng.range(4, 14) {
                if i > 0 {
                    self.w(language.space);
                }
                let word = *self.rng.pick(&words);
                self.w(word);
            }
            self.w(language.stop);
        }
    }
}

/// A word of the project's lists, without what its list says of its forms.
fn word(rng: &mut Rng) -> &'static str {
    let listed = match rng.below(6) {
        0 => *rng.pick(&PLACES),
        1 => *rng.pick(&THINGS),
        2 => *rng.pick(&IDEAS),
        3 => *rng.pick(&TRANSITIVE),
        4 => *rng.pick(&INTRANSITIVE),
        _ => *rng.pick(&TRAITS),
    };
    match listed.split([':', '+']).next().unwrap_or(listed) {
        "passkey" => NO_PASSKEY,
        word => word,
    }
}

fn identifier(rng: &mut Rng) -> String {
    let (a, b) = (word(rng), word(rng));
    match rng.below(5) {
        0 => a.to_owned(),
        1 => format!("{a}_{b}"),
        2 => format!("{a}{}{}", b[..1].to_ascii_uppercase(), &b[1..]),
        3 => format!("{}_{}", a.to_ascii_uppercase(), b.to_ascii_uppercase()),
        _ => format!("{a}{}", rng.below(100)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_seed_alone_and_is_text() {
        let whole = Formats::new(3).text(200_000);
        let mut parts = Formats::new(3);
        let (a, b) = (parts.text(777), parts.text(200_000 - 777));
        assert_eq!(whole, [a, b].concat());
        assert_ne!(whole[..1000], Formats::held(3).text(1000));
        assert_ne!(whole[..1000], Formats::new(4).text(1000));
        // Cut only at its end.
        let valid = std::str::from_utf8(&whole).map_or_else(|e| e.valid_up_to(), str::len);
        assert!(valid > whole.len() - 4);
    }

    #[test]
    fn every_format_and_language_comes() {
        let text = String::from_utf8_lossy(&Formats::new(1).text(2_000_000)).into_owned();
        for sign in ["return ", "    if (", "def ", "INFO", "HTTP/1.1", "|---", "\": ", "\n[", "\n$ "] {
            assert!(text.matches(sign).count() > 20, "{sign:?}");
        }
        for language in &LANGUAGES {
            let longest = language.words.split_whitespace().max_by_key(|w| w.len()).unwrap();
            assert!(text.contains(longest), "{longest}");
        }
    }
}
