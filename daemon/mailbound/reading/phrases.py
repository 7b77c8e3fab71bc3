"""The words by which a mail shows what it is, in the languages that mail systems and their people speak.

Each list is one pattern; a phrase is a regular expression in lower case, and what is searched is made small first:
that is five times as fast as a pattern that looks at both cases.
"""

from __future__ import annotations

import re

from mailbound.reading import alternatives


def any_of(*phrases: str, prefix: str = "", suffix: str = "") -> re.Pattern[str]:
    """Return the pattern that finds one of `phrases`, between `prefix` and `suffix`."""
    return re.compile(f"(?m){prefix}{alternatives.pattern_of(phrases)}{suffix}")


def small(text: str) -> str:
    """Return `text` in lower case, each character in its place."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)


DAEMON = any_of(
    r"mailer[-_.]?da?emon",
    r"mail[-_.\s]?daemon",
    r"post[-_.]?master",
    r"mail(?:er)?[-_.]?delivery(?:[-_. ](?:sub)?system)?",
    r"mail (?:system|administrator|transfer agent)",
    r"double-bounce|microsoftexchange\w*|[\w-]*mail[-_]?error|mdaemon",
    prefix=r"(?:^|[<\"\s(])",
    suffix=r"(?:\\?@|[>\")\s]|$)",
)
"""The names that mail systems write in From."""

OFFICE = any_of(
    r"(?:system |mail )?administrator|systemadministrator|administrateur syst[eè]me|システム管理者",
    r"microsoft (?:exchange|outlook)|mta|ndr|[\w-]*bounces?",
    prefix=r"(?:\A|<)\"?",
    suffix=r"\"?\s*(?:[<(@]|\Z)",
)
"""Those that are one only if nothing else stands there: there are Exchange teams, and a broadcaster called NDR."""

SYSTEM = any_of(
    r"[\w.-]*mail(?:er)?[-_.\s]?da?emon[\w.-]*(?:@|[>\")\s]|$)",
    r"mail(?:er)?[-_.\s]?delivery[-_.\s](?:sub)?system\b|double-bounce@|microsoftexchange\w+@",
    r"[\w.-]*smtp[\w-]*_service@|mdaemon@",
    prefix=r"(?:^|[<\"(])",
)
"""Those that only programs bear. A postmaster is a person, too, and an administrator any phisher."""

MAIL_CLIENT = any_of(
    r"outlook|thunderbird|mozilla|apple mail|iphone|ipad|\bmutt\b|evolution|kmail|the bat|eudora",
    r"roundcube|squirrelmail|horde|claws|sylpheed|k-9|webmail|pegasus|alpine|becky",
)
"""The programs with which people write."""

REPORT_SUBJECT = any_of(
    r"un-?deliver|nondeliver|unzustellbar|non remis|no se puede entregar",
    r"deliver(?:y|ed)[\s:-].*(?:fail|status|notif|report|problem|error|delay|warn|unsuccess)",
    r"(?:fail|unable|could not|not be|non)\w*[\s\w-]*deliver",
    r"mail (?:delivery |system )?(?:fail|error)|(?:processing|permanent) error",
    r"returned (?:e?-?mail|to sender|message)|(?:e?-?mail|message) returned|returning",
    r"failure (?:notice|notification)|message status|status notification",
    r"warning: (?:message|could|delivery|mail)|message (?:delayed|not delivered)|bounce|failed mail",
    r"mail error|postmaster notify",
    r"onbestelbaar|niet bezorgd|kan inte levereras|kunne ikke leveres|nie zosta[łl]a? dostarczon|consegna non riuscita",
    r"n[aã]o entregue|recapit|недоставлен|не доставлен|配信不能|配信でき|送信エラー|退信|退回",
    r"投递失败|无法投递|無法傳遞|반송|배달",
    r"successful (?:mail )?delivery|return receipt|^(?:delivered|relayed|zugestellt|remis|entregado) ?:",
)
"""What stands in the subject of a report."""

REPLY_SUBJECT = any_of(r"re|aw|sv|antw|fwd?|wg|tr", prefix=r"\A\s*", suffix=r"\s*:")
"""How a person's answer, or a forwarded mail, begins its subject."""

RETURNED_BELOW = any_of(
    r"-{2,}[ \t]*(?:below this line|this is a copy|message (?:header|text|body)s? (?:follow|below))",
    r"-{2,}[ \t]*(?:headers (?:of|follow)|begin |included is|returned |returning )",
    r"-{2,}[ \t]*(?:start of )?(?:the )?(?:original|returned|unsent|forwarded|undelivered) ?"
    r"(?:message|mail|text|header)",
    r"(?:original|unsent|returned|failed|your) (?:message|mail|text) (?:headers? ?)?(?:follow|below|is (?:below|att))",
    r"(?:the )?(?:original|first|header)s? (?:message|(?:\d+ )?lines)? ?(?:of the (?:original|message))? ?follow",
    r"original message headers?[ \t]*:?|message headers?(?: follow)?[ \t]*[.:]",
    r"content-type:[ ]*(?:message/rfc822|text/rfc822-headers)",
    r"received:[ ]*(?:from|by|\(qmail)|return-path:[ ]*<",
    prefix=r"\n[ \t>*|]*",
    suffix=r".*",
)
"""The line, after a newline, with which a mailer introduces what it gives back. Nothing behind it is its own."""

MESSAGE = any_of(
    r"(?<![\w./@-])e?-?mails?(?![\w.@/:-])|\bmessages?\b|nachricht|courriel|messagg|mensa[jg]e|bericht\b",
    r"meddeland|melding|viesti|wiadomo|zpr[aá]v|[uü]zenet|ileti|письм|сообщени|メール|メッセージ|邮件|郵件|메일|메시지",
    r"delivery (?:to|of|has|fail)|zustellung|remise|entrega\b|consegna\b|bezorging|\berror",
    r"leverans|levering|toimitus|doru[cč]en|dor[eę]czen|teslim|παρ[αά]δοση",
)
"""What mail systems send, and to whom."""

YOURS = any_of(
    r"\b(?:your|the following|the attached|the original|this) (?:\w+ ){0,2}?(?:e-?)?(?:mail|message|delivery)s?\b",
    r"\b(?:mail|message)s? (?:that )?(?:you|to) |recipient|empf[aä]nger|destinat|geadresseerde|ontvanger|adresat",
    r"odbiorc|mottagar|mottaker|modtager|vastaanottaj|c[ií]mzett|p[rř][ií]jemc|al\w?c\w?(?:ya|lar)|παραλήπτ",
    r"получател|одержувач|адресат|宛先|受信者|收件人|收信人|수신자",
    r"받는 ?사람|\A\s*[^\n:]{3,60}: *<?[^\s<>@]+@[^\s<>@]+>?\s*$",
    r"\b(?:ihre?|deine?|die|votre|ton|le|su|tu|el|il|la|o|a|uw|je|het|twoja|vaše?|ditt?|din) "
    r"(?:e-?mail|mail|nachricht|message|courriel|mensaje|correo|messaggio|mensagem|bericht|wiadomość|zpr[aá]v\w*|meddelande|melding|besked)",
    r"письмо|сообщение|メール|メッセージ|邮件|郵件|메일",
)
"""How a report speaks to whoever sent the message: of theirs, or of its recipients."""

PERSONAL = any_of(
    r"\?|\b(?:my|thanks|anyone|everybody|click|mein\w*|deine?\w*|hallo|bonjour|hola)\b",
    r"\bi (?:get|got|tried|keep|see|have|sent)\b|please (?:help|advi[sc]e|tell|note)",
    r"\bdear (?:all|customer|friend|sir|subscriber|user|valued)|https?://",
)
"""What a person says before they show a report to somebody."""

CONVERSING = any_of(
    r"\A\s*(?:hi|hello|hey|dear|hallo|bonjour|salut|hola|ciao|ol[aá]|cze[sś][cć])\b",
    r"\A\s*(?:guten \w+|sehr geehrte\w*|liebe[rs]?|beste)\b",
    r"\A\s*(?:good (?:day|morning|afternoon|evening)|thanks?|thank you|yes|no|sorry|you (?:wrote|asked|said))\b",
    r"^> |^.{0,200}\b(?:wrote|writes|schrieb|a écrit|escribió|ha scritto|escreveu|schreef|пишет|писал\w*)\s*:\s*$",
    r"^(?:kind |best |many )?(?:regards|greetings|cheers|sincerely|gr[uü](?:ß|ss)e?|cordialement|saludos|saluti)\b",
    r"^-- ?$|^-{2,} ?original (?:message|nachricht) ?-{2,}",
)
"""By what a person who answers shows: a greeting, a quotation, a signature."""

UNDELIVERED = any_of(
    r"(?:not|n['\u2019]t|never|cannot)(?: yet)?(?: been| be)?(?: able to(?: be)?)?(?: successfully)? "
    r"(?:deliver|reach|sent?\b|process|accept|complete|collect|deliverable)",
    r"un-?deliver|nondeliver|unable to (?:deliver|send|relay|complete|contact)|still not|(?:may|might) not exist",
    r"deliver\w* (?:\w+ ){0,6}fail|fail\w* (?:\w+ ){0,4}(?:deliver|recipient|address)",
    r"(?:fatal|permanent|delivery|transient) (?:\S+ )?errors?|error (?:\w+ ){0,4}deliver",
    r"follow(?:ing)? (?:\w+ ){0,2}(?:address|recipient|destination|user)",
    r"(?:unknown|invalid|bad|no such)(?: local| final)?(?: delivery)? (?:user|recipient|address|mailbox|account)",
    r"(?:user|recipient|mailbox|account|address)\w*(?: is)? (?:unknown|rejected|not (?:found|known|exist|valid))",
    r"(?:user|recipient|mailbox|account|address)\w* does(?: not|n['\u2019]t) exist|not a valid (?:user|address)",
    r"did not (?:reach|arrive)|(?:was|were|has been|have been) (?:delayed|rejected|refused|returned|bounced)",
    r"(?:problem|trouble)\w* (?:\w+ ){0,3}deliver|returned (?:to (?:you|sender)|mail|because)",
    r"did not (?:exactly )?match|not match any|incorrectly constructed|over quota|mail ?box (?:is )?full",
    r"nicht (?:an \S+@\S+ |zugestellt|zustellbar|erreicht|ausgeliefert|[uü]bermittelt)|unzustellbar|fehlgeschlagen",
    r"n['\u2019]a pas (?:pu|atteint|[eé]t[eé])|pas [eé]t[eé] (?:remis|d[eé]livr)|non remis|[eé]chec de (?:la )?remise",
    r"no (?:se )?(?:ha )?p[uo]d?[eio]\w* (?:ser )?entrega|no pudo|no se (?:ha )?entreg",
    r"non (?:[eè]|[eè]['\u2019]) ?(?:stato )?(?:possibile|consegnat|recapitat)|consegna non riuscita",
    r"n[aã]o (?:p[oôu]de|foi) ",
    r"is mislukt|misslyckades|mislykkedes|ep[aä]onnistui|nie powiod[lł]|se nezda[rř]il|konnte nicht|non riuscita",
    r"niet (?:worden )?(?:afgeleverd|bezorgd|bestel)|onbestelbaar|(?:inte|ikke|ikkje) (?:levere|sende)",
    r"nie (?:mog[lł]\w+|zosta[lł]\w*)(?: zosta[cć])? (?:dostarczon|dor[eę]czon)|nebylo mo[zž]n[eé]|nepoda[rř]ilo",
    r"απ[εέ]τυχε|ba[sş]ar\u0131s\u0131z|nedoru[cč]it",
    r"ei voitu (?:toimittaa|l[aä]hett)|nem (?:lehet|siker[uü]lt)|k[eé]zbes[ií]thetetlen|iletilemedi|teslim edilemedi",
    r"доставлен|доставить|配信(?:でき|不能|されません)|送信(?:でき|エラー)|届(?:き|け)",
    r"(?:无法|未能)(?:投递|送达|发送|向|传递)|退信|退回|(?:投递|发送)失败|不存在",
    r"niet (?:\w+ ){2,6}(?:afgeleverd|bezorgd|bereikt)|n[åa]dde (?:inte|ikke)|n[åa]ede ikke",
    r"gick inte att (?:n[åa]|lever)|nie dotar[lł]|nie mo[zż]na by[lł]o (?:dotrze|dostarcz)",
    r"n[aã]o chegou|non ha raggiunto|mancata consegna",
    r"no (?:ha llegado|lleg[oó]|alcanz[oó])|n['\u2019]est pas (?:parvenu|arriv)|ei (?:saavuttanut|tavoittanut)",
    r"nem (?:[eé]rte el|jutott el)|ula[sş](?:a)?mad",
    r"не (?:дош[еёл]|вдалося (?:достав|надісл)|удалось (?:достав|отправ))",
    r"nu a (?:putut fi|fost|ajuns)|не (?:беше|може да бъде) доставен|nij(?:e|a) (?:isporu[cč]en|dostavljen)",
    r"δεν (?:παραδόθηκε|ήταν δυνατή)|تعذر|لم يتم (?:تسليم|إرسال)|לא (?:ניתן למסור|נמסר)|ไม่สามารถส่ง",
    r"kh[oô]ng (?:th[eể] g[uử]i|g[uử]i [dđ][uư][oợ]c)|tidak dapat (?:di)?(?:kirim|sampai)|gagal (?:di)?kirim",
    r"(?:傳遞|傳送|寄送|遞送).{0,20}失敗|退件",
    r"無法(?:投遞|傳遞|送達|寄送)|배달(?:되지|하지|할 수)|전송(?:되지|할 수)|반송",
)
"""That something did not arrive."""

LATER = any_of(
    r"(?:has|have|was|were|is|been)(?: been)? delayed|not yet (?:been )?(?:deliver|accept)|deliver\w+ yet\b",
    r"still (?:being retried|trying|in the queue|not)|will (?:be )?(?:continue|keep|retr|try|tried)",
    r"will (?:be attempted|attempt (?:\w+ ){0,2}(?:re)?deliver)",
    r"warning (?:message )?only|do not need to re-?send|no need to re-?send|delivery attempts will",
    r"no action is required|\(delay\)|transient non-fatal|delivery incomplete",
    r"verz[oö]ger|retard[eé]|retrasad|ritardat|vertraagd|opóźnion|f[oö]rdr[oö]j|задерж|遅延|遅れて|延迟|延遲|지연",
)
"""That the mailer goes on trying."""

GAVE_UP = any_of(
    r"gave up|giv(?:en|ing) up|failed permanently|permanent(?:ly)? (?:fail|error|fatal)|will not be retried",
    r"returning message to sender|no further attempts|retry time(?:out| limit) (?:exceeded|has)",
    r"undeliverable|too long|expired",
)
"""That it does not, whatever else it says."""

DELIVERED = any_of(
    r"successful(?:ly)? (?:mail )?(?:deliver|relay|transmi)|success notice|\(success\)|return receipt",
    r"delivery (?:receipt|confirmation)|(?:has|have) been (?:delivered|relayed|sent) to",
    r"delivered to (?:the |these )?(?:following )?recipient",
    r"is complete, but no delivery notification|wurde an (?:\w+ ){1,3}empf[aä]nger (?:zugestellt|[uü]bermittelt)",
    r"a [eé]t[eé] (?:remis|transmis) (?:[aà]|aux)|se (?:ha entregado|entreg[oó]) (?:el|su|a)",
    r"[eè] stato (?:recapitato|consegnato) a",
    r"配信されました|已(?:成功)?(?:投递|送达)|доставлено (?:следующ|получател)",
)
"""That it did arrive, or went on to a system that sends no reports."""

NOT_DELIVERED = any_of(
    r"\b(?:not|never|unable|cannot|fail\w*|error|errors|reject\w*|refus\w*|delay\w*|unknown)\b|n['\u2019]t\b|undeliver",
    r"\bnicht\b|\bpas\b|\bno se\b|\bnon\b|\b\u043d\u0435\b|ません|无法|未能",
)
"""What takes such a sentence back."""

LIST_REFUSES = any_of(
    r"not (?:a )?members? of this (?:mailing )?list|duplicated message-id in",
    suffix=r" <(?P<address>[^<>\s]+@[^<>\s]+)>",
)
"""How a list manager returns what was sent to the list `address`."""

ABSENCE_SUBJECT = any_of(
    r"auto(?:mat(?:ic|ed|ische?|isk|yczna))?[-\s_]*(?:re(?:ply|sponse|sponder)|antwo?ord?t?|svar|vastaus|odpowied\w+|odpov\w+|yan\u0131t)",
    r"automa(?:attinen|tyczna|tick[aáyý]|atselt|tisks|tikus) \w+|otomatik yan\u0131t|r[aă]spuns automat|αυτ[οό]ματη απ",
    r"frav[aæ]r|자동 ?(?:회신|응답|답장)|ikke til stede|nep[rř][ií]tomn|aus[eê]ncia|on holiday|szabads[aá]g|poissaolo",
    r"ตอบกลับอัตโนมัติ|رد (?:تلقائي|آلي)|(?:תשובה|מענה) אוטומטי|tr[aả] l[oờ]i t[uự] [dđ][oộ]ng|balasan otomatis",
    r"automatski odgovor|samodejni odgovor|автоматичен отговор|автоматична відповідь|automatinis atsakymas",
    r"automaatvastus|स्वचालित (?:उत्तर|जवाब)|resposta autom[aà]tica",
    r"autoreply|auto: .*\b(?:out|away|absen|leave|office)",
    r"r[eé]ponse automatique|(?:message|courriel) automatique|respuesta autom[aá]tica",
    r"resposta autom[aá]tica|risposta automatica|autom\w+ v[aá]lasz|автоответ|автоматический ответ",
    r"out[-\s]of[-\s](?:the[-\s])?office|ooo\b|[^:]*\b(?:is|am) out of (?:the )?office",
    r"i(?:'|\u2019| a)m (?:out|away|on vacation)|away from (?:my|the)|on (?:annual |maternity |parental )?leave",
    r"on vacation|vacation (?:reply|message|notice)|holiday notice|abwesen|nicht im (?:b[uü]ro|haus)",
    r"urlaub(?:s\w+)?\W*$",
    r"afwezig|absence\b|absen(?:t|ce) du bureau|fuera de (?:la )?oficina|ausente|fuori (?:sede|ufficio)|assente",
    r"poza biurem|frånvaro|ute av|нет на месте|부재 ?중|自動(?:返信|応答)|自动(?:回复|答复)|自動回覆",
    r"thank you for (?:contacting|your (?:e-?mail|message|inquiry))|we (?:have )?received your (?:e-?mail|message)",
    r"(?:your )?(?:ticket|request|case|enquiry) .*\breceived\b|no longer (?:with|works?|employed|at)",
    prefix=r"(?:(?:re|aw|antw|sv|vs)\s*:\W*){0,5}",
)
"""How automatic replies, and the people who set them up, begin the subject."""

CHALLENGE_SUBJECT = any_of(
    r"please confirm (?:your|the|this) (?:e-?mail|message|delivery)|confirm you(?:r message| are human)",
    r"sender (?:verification|confirmation|validation)|verif(?:y|ication) (?:your e-?mail )?(?:to deliver|of sender)",
    r"spam ?arrest|boxbe|challenge[-/ ]response|\btmda\b|antispam uol",
    r"message (?:is )?(?:held|awaiting|pending) .*verif",
)
"""How a filter asks a sender to prove that they are a person."""

UNSUBSCRIBE_SUBJECT = any_of(
    r"unsubscribe(?:\s+(?:me|request))?|remove(?:\s+me)?|opt[- ]?out|abmelden|austragen",
    r"se\s+d[eé]sabonner|d[eé]sinscription|cancelar\s+suscripci[oó]n|darse\s+de\s+baja",
    r"cancella(?:mi|zione)|uitschrijven|отписаться|配信停止|退订",
    prefix=r"\A\s*(?:re:\s*)?(?:please\s+)?",
    suffix=r"\s*[.!]*\s*\Z",
)
"""The whole subject of a mail that asks to be left alone."""
