//! The word lists of [`Prose`](super::Prose), written for this project.
//!
//! `child:children` gives an irregular plural, `write:wrote:written` a verb's past and participle, and `stop+`
//! a verb that doubles its last letter. Related words stand together: a document prefers a stretch of each list.

const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte == b'\n'
}

const fn count(text: &str) -> usize {
    let text = text.as_bytes();
    let (mut n, mut i) = (0, 0);
    while i < text.len() {
        if !is_space(text[i]) && (i == 0 || is_space(text[i - 1])) {
            n += 1;
        }
        i += 1;
    }
    n
}

const fn split<const N: usize>(text: &'static str) -> [&'static str; N] {
    let bytes = text.as_bytes();
    let mut out = [""; N];
    let (mut n, mut i) = (0, 0);
    while i < bytes.len() {
        if is_space(bytes[i]) {
            i += 1;
            continue;
        }
        let start = i;
        while i < bytes.len() && !is_space(bytes[i]) {
            i += 1;
        }
        out[n] = text.split_at(i).0.split_at(start).1;
        n += 1;
    }
    out
}

/// What stands for `passkey` where a number may follow, of the same length: `Passkey: 48213` would answer what the plain
/// fact is asked for.
pub(super) const NO_PASSKEY: &str = "comment";

macro_rules! words {
    ($($name:ident = $text:literal;)*) => {
        $(pub(super) static $name: [&str; count($text)] = split($text);)*
    };
}

words! {
PEOPLE = "
farmer shepherd miller baker brewer butcher cook innkeeper waiter housekeeper servant gardener forester hunter
fisherman:fishermen sailor captain pilot helmsman:helmsmen ferryman:ferrymen boatswain stoker fireman:firemen
merchant grocer tailor weaver dyer tanner cobbler draper milliner jeweller goldsmith blacksmith tinker potter
carpenter joiner mason roofer plumber glazier painter sculptor engraver printer bookbinder bookseller librarian
clerk accountant banker broker lawyer judge notary magistrate constable sheriff warden gaoler thief:thieves
smuggler spy soldier sergeant colonel general officer guard sentry messenger courier porter coachman:coachmen
driver conductor engineer mechanic electrician surveyor architect builder astronomer chemist botanist geologist
physician surgeon nurse midwife:midwives apothecary dentist professor lecturer teacher tutor pupil student
apprentice scholar historian poet novelist journalist editor critic actor dancer singer fiddler drummer organist
composer priest monk nun bishop abbot pilgrim hermit preacher sexton king queen prince princess duke duchess
earl countess baron knight squire page minister senator governor mayor alderman:aldermen ambassador secretary
clown juggler wrestler swimmer climber traveller stranger guest neighbour friend companion rival enemy widow
widower orphan child:children boy girl man:men woman:women baby uncle aunt cousin nephew niece grandfather
grandmother brother sister father mother son daughter husband wife:wives landlord tenant visitor passenger
witness juror voter citizen peasant beggar wanderer exile refugee volunteer leader partner owner maker";
PLACES = "
house cottage cabin hut barn stable mill bakery brewery tavern inn hotel palace castle tower fortress prison
church chapel abbey cathedral temple school college library museum theatre hospital market shop warehouse
factory foundry workshop forge kitchen cellar attic parlour hall corridor staircase balcony terrace courtyard
garden orchard vineyard meadow pasture field farm village town city suburb harbour port dock pier lighthouse
shipyard canal lock bridge tunnel road lane street alley avenue square crossroads:crossroads station platform
depot bank office court ministry embassy barracks:barracks camp trench quarry mine well fountain pond lake
river stream brook waterfall marsh swamp moor heath forest wood grove thicket clearing valley glen gorge canyon
cliff ridge hill mountain summit glacier volcano plateau plain desert oasis:oases island peninsula cape bay
lagoon reef beach shore dune coast estuary delta border province county parish district colony capital
observatory laboratory greenhouse cemetery monument ruin cave grotto den nursery dormitory schoolroom";
THINGS = "
table chair bench stool desk shelf:shelves cupboard wardrobe chest drawer mirror lamp candle lantern torch clock
carpet curtain cushion blanket pillow mattress cradle broom bucket basin kettle saucepan pot pan plate bowl cup
saucer mug goblet bottle jar jug barrel cask spoon fork knife:knives ladle sieve grater napkin tablecloth basket
sack bag purse wallet trunk suitcase umbrella parasol cane crutch ladder rope chain hook nail screw hammer saw
chisel plane drill vice anvil bellows:bellows axe spade shovel rake hoe scythe sickle plough harrow cart wagon
carriage sledge saddle bridle harness stirrup whip wheel axle lever pulley crank gear spring piston valve boiler
furnace chimney stove oven hearth grate poker pump pipe tap hose funnel gauge thermometer barometer compass:compasses
sextant telescope microscope lens prism magnet coil battery wire cable switch bulb motor dynamo turbine engine
locomotive tram bicycle boat raft canoe barge ferry yacht schooner frigate anchor mast sail oar rudder keel hull
net lure buoy flag banner drum trumpet flute violin harp piano organ bell whistle book page letter envelope
parcel stamp newspaper pamphlet poster map chart globe diary ledger receipt ticket coin banknote medal ring
necklace bracelet brooch earring button ribbon lace needle thread thimble scissors:scissors loom spindle cloth
coat cloak jacket waistcoat shirt blouse skirt dress apron trousers:trousers stocking boot shoe slipper hat
bonnet cap helmet glove scarf:scarves veil belt sword dagger spear bow arrow shield musket pistol cannon
fence gate door window wall roof floor ceiling beam plank brick tile stone pebble boulder log twig branch root
leaf:leaves petal thorn seed bulb stalk vine fern moss mushroom nettle thistle daisy rose lily tulip violet
poppy sunflower oak elm ash beech birch willow maple pine cedar palm hazel holly ivy heather clover wheat barley
oat rye apple pear plum cherry peach apricot orange lemon grape fig olive walnut almond chestnut strawberry
turnip carrot onion cabbage lettuce bean pea potato:potatoes pumpkin melon cucumber loaf:loaves biscuit pie
pudding cake tart pancake sausage cheese egg herring cod trout salmon eel oyster crab lobster shrimp whale seal
dolphin shark horse pony mule donkey cow ox:oxen bull calf:calves sheep:sheep lamb goat pig hen rooster duck
goose:geese swan turkey pigeon dog hound puppy cat kitten mouse:mice rat rabbit hare fox:foxes wolf:wolves bear
badger otter beaver squirrel hedgehog mole bat deer:deer stag lion tiger leopard elephant camel monkey parrot
eagle hawk falcon owl raven crow magpie sparrow robin lark thrush swallow heron gull pelican snake lizard
tortoise frog toad newt spider beetle moth butterfly bee wasp ant cricket snail worm fossil crystal diamond ruby
emerald pearl shell feather horn hide bone skull tooth:teeth claw tail wing hand foot:feet finger shoulder knee
elbow eye ear nose cheek lip heart lung cloud storm rainbow shadow spark flame wave puddle icicle snowflake star
planet comet moon satellite rocket parachute balloon kite puppet doll marble toy puzzle card domino statue
portrait sketch photograph";
IDEAS = "
reason cause effect purpose method rule law principle theory proof argument objection question answer problem
solution doubt belief opinion judgement decision choice plan scheme project task duty promise bargain contract
treaty debt wage price tax fine reward prize gift loss gain profit risk danger accident disaster famine plague
fever cough wound cure remedy habit custom tradition ceremony festival holiday journey voyage expedition
adventure escape search discovery invention experiment measurement calculation mistake error fault failure
success victory defeat battle siege war truce peace revolt strike election vote debate speech sermon lecture
lesson story tale legend rumour secret riddle joke song melody rhythm poem verse chapter sentence phrase word
letter syllable accent language dialect translation meaning sign signal symbol pattern shape form colour sound
noise silence smell taste touch feeling mood temper passion love hatred envy pride shame fear hope grief joy
delight anger pity mercy courage patience honesty kindness cruelty wisdom folly memory dream thought idea notion
fancy wish desire ambition talent skill craft trade profession career office rank title right privilege freedom
power authority influence friendship marriage quarrel insult apology excuse complaint request demand order
warning threat advice hint clue trace example exception difference likeness comparison limit boundary edge corner
centre surface depth height width length weight speed distance interval moment hour day week month season year
century morning evening midnight dawn dusk spring summer autumn winter past future beginning end middle turn
change growth decay motion rest balance pressure force current tide draught heat frost weather climate harvest
supply shortage surplus quantity quality number fraction share portion total average account report record list
catalogue index code key pin passkey password number reference note remark comment review summary survey
inquiry trial verdict sentence appeal pardon crime theft fraud blame witness evidence statement";
MASS = "
water milk wine beer cider vinegar oil honey sugar salt pepper flour rice bread butter meat fish fruit tea coffee
cocoa tobacco wool cotton linen silk leather paper ink glue wax soap chalk clay sand gravel mud dust soot smoke
steam ice snow rain fog hail wind fire light darkness iron steel copper tin lead zinc brass bronze silver gold
coal peat timber straw hay grass corn ivory amber glass porcelain plaster cement tar paint varnish powder
electricity gas petrol money credit furniture luggage clothing jewellery machinery ammunition music laughter
applause gossip news information knowledge evidence luck weather traffic work labour";
TRANSITIVE = "
abandon accept accompany admire admit+ adopt advertise affect alter announce approach approve arrange arrest attack
avoid bake balance bend:bent:bent bind:bound:bound bite:bit:bitten blame bless boil borrow break:broke:broken bring:brought:brought
build:built:built burn bury buy:bought:bought calculate call capture carry carve catch:caught:caught celebrate change chase choose:chose:chosen
clean climb close collect comfort compare compose condemn confuse consider construct consult contain convince copy
correct count cover crush cultivate cure cut+:cut:cut damage deceive decorate defend deliver demand describe deserve
design destroy discover discuss display divide drag+ draw:drew:drawn drink:drank:drunk drive:drove:driven drop+ earn eat:ate:eaten
educate elect employ encourage engrave enjoy envy escort examine exchange expect explain explore extinguish fasten fear
feed:fed:fed fetch fight:fought:fought fill find:found:found finish fix fold follow forbid:forbade:forbidden forge forget+:forgot:forgotten
forgive:forgave:forgiven found frighten furnish gather govern grind:ground:ground greet grasp guard guide hammer hang:hung:hung harvest hate
heal hear:heard:heard heat help hide:hid:hidden hire hold:held:held honour hunt identify ignore imagine imitate improve inherit inspect
insult invent investigate invite judge keep:kept:kept kick kiss know:knew:known launch lead:led:led learn leave:left:left lend:lent:lent lift
light:lit:lit load lock lose:lost:lost love lower make:made:made manage mark marry measure meet:met:met melt mend mention mix move
multiply murder need neglect notice obey observe obtain occupy offend offer open oppose order overcome:overcame:overcome overhear:overheard:overheard
overlook owe own pack paint pardon pay:paid:paid permit+ persuade photograph pick plan+ plant please plough polish possess
postpone pour praise prefer+ prepare preserve print produce promise protect prove publish pull pump punish purchase
push put+:put:put question raise reach read:read:read recall receive recognise recommend record refuse regret+ reject remember remove
rent repair repeat replace report represent rescue resemble respect restore reveal ride:rode:ridden ring:rang:rung rob+ roll ruin
rule sacrifice salute satisfy save scatter scold seal search see:saw:seen seize select sell:sold:sold send:sent:sent separate serve
sew:sewed:sewn shake:shook:shaken share sharpen shelter shoot:shot:shot show:showed:shown shut+:shut:shut sign sing:sang:sung sketch smell spend:spent:spent spill
split+:split:split spread:spread:spread steal:stole:stolen steer stir+ stop+ store strike:struck:struck study suggest support surprise surround survey
suspect swallow sweep:swept:swept take:took:taken taste teach:taught:taught tear:tore:torn test thank threaten throw:threw:thrown tie touch trace
train translate treat trust turn understand:understood:understood unload use value visit wake:woke:woken want warm warn wash waste watch
water wear:wore:worn weave:wove:woven weigh welcome win+:won:won wind:wound:wound wipe witness worship wound wrap+ write:wrote:written";
INTRANSITIVE = "
appear arise:arose:arisen arrive awake:awoke:awoken bark begin+:began:begun blink blush bow breathe burst:burst:burst camp chatter come:came:come
complain compete cough crawl creep:crept:crept cry dance decay depart die disappear doze dream drift drown emerge escape
exist expire explode fade faint fall:fell:fallen falter fish flee:fled:fled float flourish flow fly:flew:flown freeze:froze:frozen frown
gallop gamble gleam glow go:went:gone grieve groan grow:grew:grown growl halt hesitate hop+ howl hum+ hurry jump kneel:knelt:knelt
labour land laugh lean leap:leapt:leapt lie:lay:lain limp linger listen live loiter march melt moan mourn mutter nod+ obey
pause perish play plunge pray prosper protest quarrel race rage rain rattle recover rejoice rest retire retreat return
rise:rose:risen roam roar rush rust+ sail scream shine:shone:shone shiver shout shrink:shrank:shrunk shudder sigh sink:sank:sunk sit+:sat:sat skate
sleep:slept:slept slide:slid:slid slip+ smile smoke sneeze snore sob+ sparkle speak:spoke:spoken stagger stand:stood:stood stare stay stroll struggle
stumble succeed suffer surrender survive swear:swore:sworn swim+:swam:swum tremble triumph tumble vanish vote wait walk wander weep:wept:wept
whistle wither work worry yawn yield";
SPEECH = "
say:said:said reply answer add explain declare announce remark observe insist admit+ argue claim suggest repeat whisper shout
mutter murmur complain boast confess warn promise cry protest report swear:swore:sworn joke guess";
MENTAL = "
think:thought:thought believe know:knew:known suppose hope fear doubt imagine remember forget+:forgot:forgotten notice understand:understood:understood
see:saw:seen hear:heard:heard feel:felt:felt expect realise learn discover find:found:found decide conclude dream pretend suspect guess";
LOOKS = "
red blue green yellow brown black white grey purple crimson scarlet golden silver pale dark bright dim dull shiny
rusty dusty muddy wet dry damp soaked frozen warm hot cold cool icy mild rough smooth soft hard brittle flexible stiff
sharp blunt thick thin fat slender narrow broad wide deep shallow high low tall short long round square flat hollow
curved crooked straight bent twisted broken cracked torn patched mended polished painted carved gilded varnished
wooden leather woollen silken iron copper marble earthen glassy empty full heavy light huge enormous vast giant
tiny little small large big old ancient young new fresh stale ripe rotten raw bitter sweet sour salty spicy
fragrant smelly loud quiet silent noisy shrill hoarse distant near foreign local northern southern eastern western
rural coastal inner outer upper lower hidden open closed locked sealed bare naked hairy woolly feathery spotted
striped checked plain ornate shabby ragged neat tidy untidy crowded deserted lonely abandoned ruined spare double
single triple annual daily weekly seasonal temporary permanent portable electric mechanical hydraulic magnetic
wild tame domestic edible poisonous harmless blind deaf lame injured sleepy hungry thirsty drunken sober";
TRAITS = "
brave bold timid cautious careful careless clever foolish wise stupid honest deceitful loyal treacherous kind
cruel gentle fierce patient eager lazy diligent proud humble modest vain generous greedy thrifty wasteful cheerful
gloomy merry solemn serious calm nervous anxious angry furious bitter jealous grateful polite rude gracious
awkward graceful elegant clumsy quick slow swift sudden gradual constant frequent rare regular strange curious odd
peculiar ordinary common usual remarkable splendid magnificent wonderful dreadful terrible horrible pleasant
agreeable tolerable miserable comfortable suitable useful necessary sufficient ample scarce abundant perfect
complete partial exact precise accurate vague obscure clear obvious evident plausible doubtful certain possible
probable famous obscure noble vulgar public private secret sacred secular legal formal official practical
theoretical general particular special separate similar different equal final previous recent modern primitive
simple complex elaborate delicate sturdy firm steady reckless prudent sensible absurd ridiculous tragic comic
dramatic romantic heroic poetic musical silent eloquent stubborn obedient faithful sincere earnest desperate
hopeless fearless tireless harmless pitiless innocent guilty fortunate unlucky prosperous poor wealthy powerful
feeble vigorous healthy zealous ingenious industrious mysterious notorious illustrious spacious precious
dangerous ominous poisonous tremendous enormous efficient reluctant abrupt savage mature remote immediate";
MANNER = "
soon again together alone aloud abroad aside indoors upstairs downstairs overhead underfoot everywhere nowhere
somewhere backwards forwards sideways uphill downhill ashore homeward inland northward southward halfway at-once
by-chance in-vain on-purpose in-silence with-care in-haste on-foot by-night by-moonlight without-warning in-turn
for-ever once-more as-usual in-public in-secret at-length side-by-side one-by-one step-by-step little-by-little
now-and-then to-and-fro in-good-order at-full-speed out-of-breath with-difficulty in-the-dark for-the-last-time";
OFTEN = "
always never often seldom rarely sometimes usually generally frequently hardly scarcely merely simply almost
nearly quite already still even only just perhaps probably certainly evidently apparently naturally finally
gradually suddenly slowly quickly secretly gladly reluctantly eventually later soon once twice";
PREPOSITION = "
in on under over above below behind beside near beyond across along around through inside outside against
between among towards from into upon beneath before after without with for about by past opposite";
GIVEN = "
Adela Agnes Alban Alfred Alice Amos Anselm Arthur Aubrey Barnaby Basil Beatrice Benedict Bertha Bridget Caleb
Cecily Clara Clement Constance Cornelius Crispin Daphne Dorothy Dunstan Edgar Edith Edmund Eleanor Elias Elspeth
Enoch Esther Eustace Felix Flora Florence Frederick Gertrude Gideon Gilbert Giles Godfrey Gwendolen Harriet Hector
Helen Henry Herbert Hester Hilda Horace Hubert Hugh Humphrey Ida Isabel Ivor Jasper Jerome Jonas Josephine Judith
Julian Laurence Lavinia Leonard Lettice Lionel Lucy Luke Mabel Magnus Marcus Margery Martha Martin Matilda Maurice
Mildred Miriam Monica Nathaniel Nicholas Nora Octavia Olive Oscar Oswald Patience Percy Philip Phoebe Prudence
Quentin Rachel Ralph Reuben Roland Rosamund Rufus Rupert Ruth Samson Sarah Silas Simon Stella Susan Sylvia
Tabitha Theodore Thomas Tobias Ursula Valentine Victor Vincent Viola Walter Wilfred Winifred Zachary";
ONSET = "
b c d f g h j k l m n p r s t v w z br bl ch cl cr dr fl fr gl gr kn pl pr qu sc sh sk sl sm sn sp st str sw th tr
tw wh wr";
VOWEL = "a e i o u a e i o u a e o ai au ea ee ei ia ie oa oo ou y";
CODA = "
b ck d f g l ll m n n n nd ng nt p r r rd rk rl rm rn rt s s ss st t t th x lt ld mp nk sh";
SURNAME_END = "
son ton ham ford wick well field wood worth ley by bury stead land more ridge gate den dale er man ing sby combe
thorpe shaw croft lock bridge hurst";
PLACE_END = "
ton ham ford wick well field wood mouth ley by bury stead haven more ridge gate den dale burgh port minster pool
cliffe holm ness thwaite marsh grad stadt ville polis";
MONTH = "January February March April May June July August September October November December";
WEEKDAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday";
SMALL_NUMBER = "
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen";
TENS = "ten ten twenty thirty forty fifty sixty seventy eighty ninety";
ORDINAL = "
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth twentieth fiftieth
hundredth last next";
UNIT = "
inches feet yards miles leagues fathoms acres ounces pounds stone tons pints quarts gallons bushels barrels
shillings pence crowns guineas dollars francs marks degrees minutes hours days weeks months years metres
kilometres grams kilograms litres volts watts knots pages copies sacks bales crates";
MEASURE = "
age height weight width depth length colour shape price speed size rank owner mother father river flag motto
population temperature latitude area wage debt distance birthplace trade";
COOKING = "
chop+ slice peel grate boil simmer fry roast bake stew steam whisk beat:beat:beaten stir+ mix knead fold sift sprinkle drain
strain pour spread:spread:spread season soak warm cool chill melt crush grind:ground:ground mince stuff serve garnish rinse dry salt";
INGREDIENT = "
flour sugar butter milk cream eggs salt pepper nutmeg cinnamon cloves ginger saffron thyme parsley sage rosemary
mint basil dill mustard vinegar oil lard suet onions garlic leeks carrots turnips parsnips potatoes cabbage
spinach celery mushrooms tomatoes beans peas lentils barley rice oats noodles breadcrumbs almonds walnuts raisins
currants apples pears plums cherries lemons oranges honey treacle yeast cocoa coffee brandy cider stock chicken
beef mutton pork bacon ham veal rabbit duck herring cod salmon trout mussels shrimps cheese";
DISH = "soup stew pie pudding cake bread roll tart sauce salad broth dumplings pancakes biscuits jam chutney porridge roast hash pasty";
}
