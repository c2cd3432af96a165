"""Words the rules know: a plain table each, written for this project, all lower-case.

The lists decide what is recognised without capitals or punctuation; a word that is missing costs a fact, never makes one.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOP_WORDS = _words("""
    a about above after again ago all almost alone along already also although always am among an and another any
    anybody anyone anything anyway are aren't around as ask at away back be became because become been before being
    below better between both bring but by can can't cannot come comes coming could couldn't did didn't different do
    does doesn't doing don't done down during each either else enough even ever every everybody everyone everything
    few fine first for from get gets getting give go goes going gone gonna good got great had hadn't happen happy has
    hasn't have haven't having he he'd he'll he's hello help her here hers herself hey hi him himself his how i i'd
    i'll i'm i've if in into is isn't it it'll it's its itself just keep kind know last later least less let let's
    like little long look lot made make many may maybe me mean might mine more morning most much must my myself need
    never new next nice no nobody none nor not nothing now of off often oh ok okay old on once one only or other our
    ours out over own people perhaps please pretty put quite rather ready really remember right said same saw say says
    see seem seen shall she she'd she'll she's should shouldn't since so some somebody someone something sometimes
    somewhere soon sorry sounds still such sure take tell than thank thanks that that'll that's the their theirs them
    then there there's these they they'd they'll they're they've thing things think this those though through time to
    today together tomorrow tonight too took try two under until up upon us use used very want wants was wasn't way we
    we'd we'll we're we've welcome well went were weren't what what's when where which while who whole whom whose why
    will with without won't work would wouldn't yeah year yes yesterday yet you you'd you'll you're you've your yours
    um uh
""")

ENGLISH = _words("""
    the and to of is it you that i we for my have with this are at on be can your he she they but what from do please
    need i'll i'm it's don't will not me was there about would our tomorrow today monday tuesday wednesday thursday
    friday saturday sunday a in doesn't didn't likes loves hates lives works plays speaks eats call buy send bring
""")
"""Words by which a text is taken for English: frequent ones, few of which other languages share."""

FEMALE_NAMES = _words("""
    abigail adele agnes alexandra alice alicia alison amanda amelia amy andrea angela anita ann anna anne annie
    antonia audrey barbara beatrice becky bella bernadette beth bethany betty brenda bridget camilla carla carmen
    carol caroline catherine cecilia charlotte chloe christina christine claire clara claudia cynthia daisy daniela
    deborah debbie denise diana diane donna doris dorothy edith eileen elaine eleanor elena elisa elizabeth ella ellen
    emily emma erica erin esther eva evelyn fatima fiona florence frances gabriela georgia gina gloria greta hannah
    harriet heather heidi helen helena ida ingrid irene iris isabel isabella jackie jacqueline jane janet janice
    jennifer jenny jessica jill joan joanna josephine judith judy julia julie karen kate katherine kathleen katie
    kelly kim kirsten kristin laura lauren leah lena leonie lily linda lisa liz lola lorraine louisa louise lucia lucy
    lydia lynn madeleine maggie margaret maria marie marina marion martha mary matilda maya megan melanie melissa
    mia michelle mildred miriam molly monica nadia nancy naomi natalie natasha nicole nina nora olga olivia pamela
    patricia paula pauline penelope petra phoebe polly priya rachel rebecca renee rita roberta rosa rosemary ruth
    sabrina sally samantha sandra sara sarah sharon sheila shirley sonia sophia sophie stella stephanie susan susanna
    suzanne svetlana sylvia tamara tania teresa theresa tina tracy ursula valerie vanessa vera veronica victoria
    vivian wanda wendy yvonne yasmin zoe
""")

MALE_NAMES = _words("""
    aaron adam adrian ahmed alan albert alex alexander alfred ali andrew andy anthony antonio arthur barry ben benjamin
    bernard bob bobby boris brandon brian bruce bryan carl carlos charles charlie christopher clark colin craig daniel
    danny darren dave david dennis derek diego dominic donald douglas duncan dylan ed eddie edgar edmund eduardo edward
    edwin elias elliot eric ernest ethan eugene evan felix fernando finn francis fred frederick gabriel gareth gary
    geoffrey george gerald gilbert giovanni glenn gordon graham greg gregory gustav hans harold harry hassan hector
    henry herbert howard hugh hugo ian igor isaac ivan jacob jake jakob james jamie jan jason jeff jeffrey jeremy jerry
    jim jimmy joe joel john johnny jonas jonathan jorge jose joseph joshua juan julian justin karl keith ken kenneth
    kevin klaus kurt kyle larry lars lawrence leo leon leonard lewis liam louis luca lucas luis luke malcolm manuel
    marco marcus mario martin marvin mateo matthew matthias maurice maxim michael miguel mike milo mohammed morris
    nathan neil nicholas nick nicolas nigel noah norman oliver omar oscar otto owen pablo patrick paul pedro pete peter
    phil philip quentin rafael ralph ramon raymond reginald ricardo richard rick robert roberto robin rodney roger
    roland ronald ross roy rudolf russell ryan sam samuel scott sean sebastian sergei seth simon stan stanley stefan
    stephen steve steven stuart ted terry theo theodore thomas tim timothy tobias toby tom tommy tony travis trevor
    tyler victor vincent vladimir walter warren wayne wilfred william xavier yusuf zachary
""")

AMBIGUOUS_NAMES = _words("""
    april art august bill chase christian dawn dean drew faith frank grace grant guy hope jack jean joy june mark max
    may miles olive pat ray rich rob rose ruby sky sue summer violet will
""")
"""Names that are also words: believed only beside a kin word, or with a capital inside a sentence."""

FEMALE_KIN = _words("""
    sister mother mum mom mommy wife daughter aunt grandmother grandma girlfriend niece granddaughter
""")
MALE_KIN = _words("""
    brother father dad daddy husband son uncle grandfather grandpa boyfriend nephew grandson
""")
KIN = (
    FEMALE_KIN
    | MALE_KIN
    | _words("""
    cousin friend colleague neighbour neighbor boss partner doctor dentist teacher boy girl child baby dog cat assistant
    manager lawyer fiance fiancee roommate flatmate
""")
)

PLACES = frozenset(
    part.strip()
    for part in """
    amsterdam, athens, atlanta, austin, baltimore, barcelona, beijing, berlin, birmingham, boston, bristol, brooklyn,
    brussels, budapest, cairo, cambridge, chicago, cologne, copenhagen, dallas, delhi, denver, detroit, dresden, dubai,
    dublin, edinburgh, florence, frankfurt, geneva, glasgow, hamburg, helsinki, hong kong, houston, istanbul, jakarta,
    krakow, leeds, leipzig, lisbon, liverpool, london, los angeles, lyon, madrid, manchester, melbourne, mexico city,
    miami, milan, minneapolis, montreal, moscow, mumbai, munich, nairobi, naples, new york, new york city, newcastle,
    oslo, oxford, paris, philadelphia, phoenix, pittsburgh, portland, porto, prague, rome, sacramento, salzburg,
    san diego, san francisco, san jose, seattle, seoul, shanghai, singapore, stockholm, stuttgart, sydney, tel aviv,
    tokyo, toronto, turin, valencia, vancouver, venice, vienna, warsaw, washington, zurich,
    alaska, arizona, california, colorado, florida, hawaii, illinois, massachusetts, michigan, montana, new jersey,
    ohio, oregon, pennsylvania, tennessee, texas, utah, vermont, virginia,
    africa, america, argentina, asia, australia, austria, bavaria, belgium, brazil, britain, canada, chile, china,
    croatia, denmark, egypt, england, europe, finland, france, germany, greece, hungary, iceland, india, ireland,
    israel, italy, japan, kenya, korea, mexico, morocco, netherlands, new zealand, norway, poland, portugal, romania,
    russia, scotland, south africa, spain, sweden, switzerland, thailand, turkey, ukraine, united states, vietnam, wales
    """.split(",")
)
PLACE_WORDS = frozenset(word for place in PLACES for word in place.split() if " " not in place)
LONG_PLACES = tuple(sorted((place for place in PLACES if " " in place), key=len, reverse=True))

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
LANGUAGES = _words("""
    arabic chinese danish dutch english finnish french german greek hebrew hindi hungarian italian japanese korean
    latin norwegian polish portuguese russian spanish swedish turkish ukrainian american british european swiss
    christmas easter
""")
ALWAYS_CAPITAL = (
    frozenset(WEEKDAYS) | (frozenset(MONTHS) - {"march", "may", "august"}) | LANGUAGES | (PLACE_WORDS - {"turkey"})
)
"""Written with a capital wherever they stand."""

GROCERIES = _words("""
    apples apple avocado avocados bacon bananas banana basil batteries beans beef beer berries biscuits blueberries
    bread broccoli bulbs butter cabbage candles carrots cauliflower cereal charcoal cheese cherries chicken chips
    chocolate cinnamon coffee cookies corn cream crackers cucumber cucumbers dates detergent diapers eggs envelopes
    fish flour flowers fruit garlic ginger glue grapes ham honey ice jam juice ketchup lamb lemon lemons lentils
    lettuce limes margarine mayonnaise meat medicine melon milk mushrooms mustard nails napkins noodles nuts oats
    oil onion onions oranges paint paper parsley pasta peaches peanuts pears peas pepper peppers pickles pineapple
    plums pork potatoes pumpkin raisins rice salad salmon salt sauce sausages screws shampoo shrimp soap soda spaghetti
    spices spinach sponges stamps steak strawberries sugar tea tofu tomato tomatoes toothpaste towels tuna vegetables
    vinegar water watermelon wine yeast yoghurt yogurt
""")
GROCERY_PAIRS = frozenset(
    part.strip()
    for part in """
    olive oil, orange juice, apple juice, toilet paper, paper towels, ice cream, sour cream, peanut butter, dog food,
    cat food, light bulbs, tomato sauce, soy sauce, dish soap, baking powder, coconut milk, green tea, black tea,
    chocolate cake, baking soda, potato chips, wrapping paper, printer paper, cream cheese, goat cheese, brown bread,
    sparkling water, chicken breast, washing powder, bin bags, birthday card, birthday cake
    """.split(",")
)
