//! The phrases of [`Prose`](super::Prose), set in lines by hand: with their spaces, where they have any.

/// Joins two clauses.
pub(super) static JOIN: &[&str] = &[
    ", and ", ", but ", ", for ", ", yet ", ", so ", "; ", "; however, ", "; indeed, ", ": ", " -- ",
    " because ", " while ", " although ", " until ", " when ", " before ", " after ", " as if ", " so that ",
    " unless ", " since ", " whereas ", " and then ", "; moreover, ", "; otherwise ", ", as ", " wherever ",
    " as soon as ", " even though ", ", nor was it surprising that ", ", which meant that ",
    "; at the same time ", ", or perhaps ",
];
/// Opens a subordinate clause that a main clause follows.
pub(super) static OPEN: &[&str] = &[
    "although ", "when ", "if ", "because ", "as soon as ", "before ", "after ", "while ", "unless ",
    "since ", "whenever ", "once ", "even if ", "as long as ", "now that ", "until ", "though ",
    "by the time ", "wherever ", "just as ", "long before ", "every time ", "in case ", "considering that ",
    "given that ",
];
/// Opens a sentence.
pub(super) static ADJUNCT: &[&str] = &[
    "in the end", "at first", "on the whole", "after all", "of course", "in fact", "for example",
    "for instance", "as a rule", "in general", "by contrast", "on the other hand", "in other words",
    "to be sure", "in short", "above all", "at any rate", "in particular", "as a result", "for this reason",
    "in the meantime", "meanwhile", "nevertheless", "therefore", "furthermore", "besides", "instead",
    "likewise", "consequently", "unfortunately", "fortunately", "to everyone's surprise", "strange to say",
    "needless to say", "all the same", "in those days", "long ago", "once upon a time", "the next morning",
    "that evening", "a little later", "at noon", "at midnight", "towards dusk", "before sunrise",
    "during the winter", "in the spring", "all summer", "some years ago", "the day after", "a week later",
    "not long afterwards", "from time to time", "every now and then", "at last", "in the distance",
    "on the left", "on the right", "not far away", "down below", "up there", "here and there",
    "as far as anyone knew", "according to the newspapers", "if the reports are true", "in my opinion",
    "to my mind", "speaking generally", "as everybody knows", "contrary to expectation",
    "in spite of everything", "by and by", "one afternoon", "late at night", "in broad daylight",
    "at the same moment", "without another word", "for a long time", "for the most part",
    "in the first place", "secondly", "thirdly", "lastly", "again", "now", "then", "still", "perhaps",
    "today", "yesterday", "tomorrow", "once more", "so far", "even so", "of late",
];
/// Before a verb's base form.
pub(super) static MODAL: &[&str] = &[
    "could ", "would ", "might ", "must ", "should ", "can ", "will ", "may ", "could not ", "would not ",
    "must not ", "cannot ", "will not ", "might well ", "ought to ", "used to ", "would rather ", "shall ",
    "had better ", "could hardly ", "can easily ", "may never ", "would gladly ", "did not ", "was about to ",
    "had to ",
];
/// Before a plural noun.
pub(super) static SOME: &[&str] = &[
    "some ", "many ", "several ", "few ", "a few ", "most ", "all the ", "these ", "those ", "no ",
    "countless ", "two or three ", "dozens of ", "hundreds of ", "a great many ", "various ", "other ",
    "more ", "fewer ", "a pair of ", "a number of ", "plenty of ", "both ", "half of the ", "most of the ",
    "none of the ", "such ",
];
/// Before a singular noun; `a` takes its n where needed.
pub(super) static ONE: &[&str] = &[
    "the ", "the ", "the ", "the ", "the ", "the ", "the ", "a ", "a ", "a ", "a ", "this ", "that ",
    "every ", "each ", "another ", "no ", "his ", "her ", "their ", "our ", "my ", "its ", "any ", "some ",
    "one ", "either ", "the same ", "the other ", "the only ", "the very ", "your ", "such a ", "many a ",
    "quite a ",
];
/// Between verb and adjective.
pub(super) static COPULA_PAST: &[&str] = &[
    "was ", "was ", "was ", "was not ", "seemed ", "looked ", "became ", "had been ", "remained ", "grew ",
    "appeared ", "felt ", "proved ", "was never ", "was still ", "was always ", "had become ", "could be ",
    "must have been ",
];
/// The same in the present.
pub(super) static COPULA_NOW: &[&str] = &[
    "is ", "is ", "is ", "is not ", "seems ", "looks ", "becomes ", "has been ", "remains ", "appears ",
    "can be ", "may be ", "is never ", "is still ", "is always ", "must be ", "will be ", "proves ",
    "has become ",
];
/// Before an adjective.
pub(super) static DEGREE: &[&str] = &[
    "very ", "rather ", "quite ", "too ", "so ", "more ", "less ", "most ", "extremely ", "hardly ",
    "fairly ", "somewhat ", "almost ", "truly ", "unusually ", "equally ", "perfectly ", "not very ",
    "a little ", "far too ",
];
/// Short lines of talk.
pub(super) static INTERJECTION: &[&str] = &[
    "Yes", "No", "Oh", "Well", "Indeed", "Nonsense", "Never", "Of course", "Good heavens", "Certainly",
    "Perhaps", "I see", "Not at all", "Come in", "Go on", "Wait", "Listen", "Look here", "My dear friend",
    "Thank you", "Please", "Good morning", "Good night", "Sit down", "Hush", "Alas", "Quite so", "Who knows",
    "What of it", "Hm", "So be it", "Very well", "I beg your pardon", "Don't worry", "It can't be helped",
    "You're right", "I'm not sure", "That's enough", "Hurry up", "Let me see", "Believe me", "Never mind",
    "How strange", "What a pity",
];
/// Questions take a clause after these.
pub(super) static ASK: &[&str] = &[
    "how could it be that ", "is it true that ", "do you think that ", "why was it that ",
    "who would believe that ", "did anyone notice that ", "when was it that ", "would it matter if ",
    "what if ", "have you heard that ", "could it be that ", "is there any proof that ",
    "must we suppose that ", "who told you that ", "since when ",
];
/// Statements take a clause after these.
pub(super) static THAT: &[&str] = &[
    "it is said that ", "it was clear that ", "it seemed that ", "there is no doubt that ",
    "it follows that ", "it is well known that ", "nobody denied that ", "the truth is that ",
    "it turned out that ", "rumour had it that ", "one might suppose that ", "it is hardly surprising that ",
    "the record shows that ", "it must be added that ", "it happened that ", "we know that ",
    "I am told that ", "it has been shown that ", "some maintain that ", "it was agreed that ",
    "they say that ", "the difficulty was that ", "what mattered was that ",
    "the first thing to remember is that ", "let us suppose that ", "everyone could see that ",
];
/// Openings of letters.
pub(super) static DEAR: &[&str] = &[
    "Dear ", "My dear ", "Dearest ", "Esteemed ", "To ", "Dear Mr. ", "Dear Mrs. ", "Dear Dr. ", "Honoured ",
    "Hello ",
];
/// Ends of letters.
pub(super) static YOURS: &[&str] = &[
    "Yours truly", "Yours sincerely", "Yours faithfully", "With kind regards", "Ever yours",
    "Your obedient servant", "Your friend", "With love", "In haste", "Best wishes", "Respectfully",
    "Until we meet", "Affectionately",
];
/// Opens a heading.
pub(super) static ABOUT: &[&str] = &[
    "On ", "Of ", "About ", "The History of ", "Notes on ", "A Treatise on ", "Concerning ", "Against ",
    "In Praise of ", "The Trouble with ", "Remarks upon ", "An Account of ", "How to Choose ", "Why ",
    "The Care of ", "Towards ", "", "The Art of ", "Some Words about ", "The Return of ", "The Case of ",
    "Living with ", "Without ", "Lessons from ",
];
