//! Writes XML: a tree of elements in, text out, with everything escaped that came from outside. It knows nothing of libvirt.
//!
//! Decision: a writer of our own, because what we write is a small tree and the only thing that may go wrong is the escaping, which
//! stands in one function. Reading is another matter and is left to a parser (`roxmltree`, in `mark`).

/// An element. Names are ours and known when compiling; values may hold anything.
#[derive(Debug, Clone)]
pub(super) struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    content: Content,
}

/// What stands between an element's tags.
#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Children(Vec<Element>),
}

/// Text that XML 1.0 cannot carry, not even escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the character U+{:04X} in {element:?} cannot be written as XML", u32::from(*character))]
pub(super) struct Unwritable {
    character: char,
    element: &'static str,
}

impl Element {
    /// An empty element.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, attributes: Vec::new(), content: Content::Children(Vec::new()) }
    }

    /// An element that holds text.
    pub(super) fn text(name: &'static str, text: impl ToString) -> Self {
        Self { name, attributes: Vec::new(), content: Content::Text(text.to_string()) }
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// Adds a child. In an element of text there is no place for one: the text gives way.
    pub(super) fn child(mut self, child: Element) -> Self {
        match &mut self.content {
            Content::Children(children) => children.push(child),
            Content::Text(_) => self.content = Content::Children(vec![child]),
        }
        self
    }

    /// Adds children.
    pub(super) fn children(self, children: impl IntoIterator<Item = Element>) -> Self {
        children.into_iter().fold(self, Element::child)
    }

    /// The text of the whole tree.
    pub(super) fn write(&self) -> Result<String, Unwritable> {
        let mut out = String::new();
        self.write_to(&mut out)?;
        Ok(out)
    }

    fn write_to(&self, out: &mut String) -> Result<(), Unwritable> {
        out.push('<');
        out.push_str(self.name);
        for (name, value) in &self.attributes {
            out.push(' ');
            out.push_str(name);
            out.push_str("=\"");
            self.escape(value, out)?;
            out.push('"');
        }
        out.push('>');
        match &self.content {
            Content::Text(text) => self.escape(text, out)?,
            Content::Children(children) => children.iter().try_for_each(|child| child.write_to(out))?,
        }
        out.push_str("</");
        out.push_str(self.name);
        out.push('>');
        Ok(())
    }

    /// White space is escaped too: a parser would turn a line's end into a blank within an attribute, and a carriage return
    /// into a line's end anywhere.
    fn escape(&self, text: &str, out: &mut String) -> Result<(), Unwritable> {
        for character in text.chars() {
            match character {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&apos;"),
                '\n' => out.push_str("&#10;"),
                '\r' => out.push_str("&#13;"),
                '\t' => out.push_str("&#9;"),
                '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                    return Err(Unwritable { character, element: self.name });
                }
                _ => out.push(character),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOSTILE: [&str; 6] = [
        "</name><devices><disk/></devices><name>",
        "' onload=\" <!-- --> ]]> <![CDATA[",
        "&lt; &#0; &unknown; %entity;",
        "a\nb\r\nc\td",
        "<!DOCTYPE x [<!ENTITY y SYSTEM \"file:///etc/shadow\">]>&y;",
        "Ünïcödé 🚋",
    ];

    fn round_trip(text: &str) {
        let tree = Element::new("a").with("b", text).child(Element::text("c", text));
        let written = tree.write().unwrap();
        let parsed = roxmltree::Document::parse(&written).unwrap();
        let a = parsed.root_element();
        assert_eq!(a.attribute("b"), Some(text), "{written}");
        assert_eq!(a.children().count(), 1, "{written}");
        assert_eq!(a.first_child().and_then(|c| c.text()).unwrap_or(""), text, "{written}");
    }

    #[test]
    fn hostile_text_stays_text() {
        HOSTILE.into_iter().for_each(round_trip);
    }

    #[test]
    fn what_xml_cannot_carry_is_refused() {
        for character in ['\0', '\u{1}', '\u{1b}', '\u{ffff}'] {
            let error = Element::text("cmdline", format!("a{character}b")).write().unwrap_err();
            assert_eq!(error, Unwritable { character, element: "cmdline" });
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_comes_back(text in any::<String>()) {
            if Element::text("a", &text).write().is_ok() {
                round_trip(&text);
            }
        }
    }
}
