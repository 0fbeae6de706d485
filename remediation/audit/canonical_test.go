package audit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/locotoki/backout/remediation/audit"
)

// goldens are entries that testdata/canonical.py hashed.
func goldens(t *testing.T) (entries []audit.Entry, canonical []string) {
	t.Helper()
	b, err := os.ReadFile("testdata/canonical.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var g struct {
			Entry     audit.Entry
			Canonical string
		}
		if err := json.Unmarshal(line, &g); err != nil {
			t.Fatal(err)
		}
		entries, canonical = append(entries, g.Entry), append(canonical, g.Canonical)
	}
	if len(entries) < 100 {
		t.Fatalf("%d entries in testdata/canonical.jsonl", len(entries))
	}
	return entries, canonical
}

func TestEntriesAreHashedAsPythonHashesThem(t *testing.T) {
	entries, canonical := goldens(t)
	var chain audit.Chain
	for i, e := range entries {
		if got := string(e.Canonical()); got != canonical[i] {
			t.Fatalf("entry %d\ngot  %q\nwant %q", e.Seq, got, canonical[i])
		}
		if err := chain.Add(e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALineOfAnExportIsTheCanonicalFormWithItsHash(t *testing.T) {
	entries, canonical := goldens(t)
	for i, e := range entries {
		line, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		without := strings.Replace(string(line), `,"hash":"`+e.Hash+`"`, "", 1)
		if without != canonical[i] || !strings.Contains(string(line), `,"hash":"`+e.Hash+`","incident":`) {
			t.Fatalf("entry %d\ngot  %q\nwant %q with its hash", e.Seq, line, canonical[i])
		}
		// What escapes or sorts otherwise is read as the same entry.
		for _, rewrite := range []func() ([]byte, error){
			func() ([]byte, error) { return line, nil },
			func() ([]byte, error) { return json.Marshal(e) },
			func() ([]byte, error) { return json.MarshalIndent(e, " ", "\t") },
		} {
			b, err := rewrite()
			if err != nil {
				t.Fatal(err)
			}
			var back audit.Entry
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, e) || back.Sum() != e.Hash {
				t.Fatalf("entry %d was read back as %+v", e.Seq, back)
			}
		}
	}
}

// risk writes itself as text, as a playbook's risk class does.
type risk int

func (risk) MarshalText() ([]byte, error) { return []byte("lossy"), nil }

func TestDetailTakesWhatHasACanonicalForm(t *testing.T) {
	moment := time.Date(2026, 11, 22, 4, 0, 0, 500, time.FixedZone("", 3600))
	two := 2
	type text string
	for name, c := range map[string]struct {
		in   any
		want string
	}{
		"null":               {nil, `null`},
		"int":                {-3, `-3`},
		"sized int":          {uint8(200), `200`},
		"uint64":             {^uint64(0), `18446744073709551615`},
		"big int":            {new(big.Int).Lsh(big.NewInt(1), 100), `1267650600228229401496703205376`},
		"beyond 2^53":        {int64(1<<53 + 1), `9007199254740993`},
		"number":             {json.Number("12345678901234567890"), `12345678901234567890`},
		"minus nought":       {json.Number("-0"), `0`},
		"named text":         {text("a"), `"a"`},
		"kind":               {audit.KindIntent, `"intent"`},
		"risk":               {risk(3), `"lossy"`},
		"time":               {moment, `"2026-11-22T03:00:00.0000005Z"`},
		"no time":            {(*time.Time)(nil), `null`},
		"duration":           {90 * time.Second, `"1m30s"`},
		"pointer":            {&two, `2`},
		"texts":              {[]string{"b", "a"}, `["b","a"]`},
		"named texts":        {[]text{"closed"}, `["closed"]`},
		"labels as pairs":    {[]any{[]any{"größe", "1"}}, `[["größe","1"]]`},
		"map of texts":       {map[string]string{"b": "1", "a": "2"}, `{"a":"2","b":"1"}`},
		"maps":               {[]map[string]any{{"b": 1, "a": true}}, `[{"a":true,"b":1}]`},
		"named map":          {map[text]int{"b": 1}, `{"b":1}`},
		"empty":              {map[string]any{"a": []any{}, "b": map[string]any{}}, `{"a":[],"b":{}}`},
		"JSON":               {json.RawMessage(` {"b" : [1, -0, "\u003c\ud800"], "a" : null} `), `{"a":null,"b":[1,0,"<` + "\ufffd" + `"]}`},
		"no JSON":            {json.RawMessage(nil), `null`},
		"broken UTF-8":       {"a\xff\xfe\xe2\x82z\xed\xa0\x80", `"a` + strings.Repeat("\ufffd", 4) + "z" + strings.Repeat("\ufffd", 3) + `"`},
		"control":            {"\x00\x01\b\t\n\v\f\r\x1f\x7f", `"\u0000\u0001\b\t\n\u000b\f\r\u001f` + "\x7f" + `"`},
		"not escaped":        {"\u2028\u2029<>&/'\U0001f6a8", "\"\u2028\u2029<>&/'\U0001f6a8\""},
		"quotes":             {`"\`, `"\"\\"`},
		"keys by their byte": {map[string]int{"b": 1, "B": 2, "_": 3, "": 4, "\"": 5}, `{"":4,"\"":5,"B":2,"_":3,"b":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			e := audit.Entry{Detail: map[string]any{"x": c.in}}
			if _, err := e.Normal(); err != nil {
				t.Fatal(err)
			}
			want := `"detail":{"x":` + c.want + `},"incident"`
			if got := string(e.Canonical()); !strings.Contains(got, want) {
				t.Fatalf("got %s, want %s", got, want)
			}
		})
	}
}

func TestDetailRefusesWhatHasNone(t *testing.T) {
	deep := any("x")
	for range 40 {
		deep = []any{deep}
	}
	for name, c := range map[string]struct {
		in   any
		want string
	}{
		"float":           {0.5, "detail.x: 0.5: not an integer"},
		"whole float":     {1.0, "not an integer"},
		"float32":         {float32(1), "not an integer"},
		"nested float":    {[]any{map[string]any{"y": 1.5}}, "detail.x[0].y: 1.5: not an integer"},
		"float in JSON":   {json.RawMessage(`{"y":1.0}`), `detail.x.y: "1.0": not an integer`},
		"exponent":        {json.Number("1e3"), "not an integer"},
		"leading nought":  {json.Number("01"), "not an integer"},
		"plus":            {json.Number("+1"), "not an integer"},
		"no number":       {json.Number(""), "not an integer"},
		"not a number":    {json.Number("NaN"), "not an integer"},
		"endless integer": {json.Number(strings.Repeat("9", 1001)), "over 1000 digits"},
		"key":             {map[string]any{"größe": 1}, `detail.x."größe": a key that is not ASCII`},
		"struct":          {struct{ A int }{1}, "has no canonical form"},
		"bytes":           {[]byte("a"), "has no canonical form"},
		"function":        {func() {}, "has no canonical form"},
		"map by number":   {map[int]int{1: 1}, "has no canonical form"},
		"broken JSON":     {json.RawMessage(`{`), "detail.x: decode JSON"},
		"two JSON values": {json.RawMessage(`1 2`), "more than one value"},
		"deep":            {deep, "nested more than 32 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			e := audit.Entry{Kind: audit.KindHeld, Detail: map[string]any{"x": c.in}}
			_, err := e.Normal()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if e.Canonical() != nil || e.Sum() != "" {
				t.Fatalf("it has the form %s and the sum %q", e.Canonical(), e.Sum())
			}
			if _, err := json.Marshal(e); err == nil {
				t.Fatal("it was written as JSON")
			}
		})
	}
	if _, err := (audit.Entry{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}).Normal(); err == nil {
		t.Error("a year of five digits was taken")
	}
}

func TestWhatIsNotAnEntryIsNotRead(t *testing.T) {
	good, err := audit.Entry{Detail: map[string]any{"a": 1}}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"missing key":  {`"step":"",`, ``},
		"unknown key":  {`"step":"",`, `"step":"","stop":"",`},
		"another case": {`"step":"",`, `"Step":"",`},
		"key twice":    {`"step":"",`, `"step":"","step":"",`},
		"no hash":      {`"hash":"",`, ``},
		"broken UTF-8": {`"step":""`, "\"step\":\"\xff\""},
		"null":         {`"step":""`, `"step":null`},
		"float":        {`"a":1`, `"a":1.0`},
		"float seq":    {`"seq":0`, `"seq":0.0`},
		"detail":       {`{"a":1}`, `[]`},
		"key":          {`{"a":1}`, `{"ä":1}`},
		"name twice":   {`{"a":1}`, `{"a":1,"a":1}`},
		"minus nought": {`"a":1`, `"a":-0`},
		"time":         {`.000000Z`, `Z`},
		"zone":         {`.000000Z`, `.000000+00:00`},
	} {
		bad := strings.Replace(string(good), edit[0], edit[1], 1)
		var e audit.Entry
		if err := json.Unmarshal([]byte(bad), &e); bad == string(good) || err == nil {
			t.Errorf("%s: read %s as %+v", name, bad, e)
		}
	}
	for _, bad := range []string{``, `null`, `[]`, `1`, `{}`} {
		var e audit.Entry
		if err := e.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("read %q", bad)
		}
	}
}

func TestStoredBytesMustBeCanonical(t *testing.T) {
	e, canonical, err := audit.Entry{Kind: audit.KindHeld, Actor: "<", Detail: map[string]any{"a": 1, "b": 2}}.Seal(4, audit.ZeroHash)
	if err != nil {
		t.Fatal(err)
	}
	back, err := audit.ParseEntry(canonical, e.Hash)
	if err != nil || !reflect.DeepEqual(back, e) {
		t.Fatalf("sealed %+v, parsed %+v (%v)", e, back, err)
	}
	for _, edit := range [][2]string{
		{`{"a":1,"b":2}`, `{"b":2,"a":1}`}, {`{"a":1,"b":2}`, `{"a":1,"b":2,"b":2}`}, {`"a":1`, `"a": 1`}, {`<`, `\u003c`}, {`"seq":5`, `"seq":5,"x":1`},
		{`"incident"`, `"hash":"","incident"`}, {`"seq":5,`, ``},
	} {
		bad := strings.Replace(string(canonical), edit[0], edit[1], 1)
		if _, err := audit.ParseEntry([]byte(bad), e.Hash); bad == string(canonical) || err == nil {
			t.Errorf("parsed %s", bad)
		}
	}
}

// text draws strings with all that is special to JSON, and broken UTF-8.
func text() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.StringOf(rapid.RuneFrom([]rune{0, 1, '\b', '\t', '\n', 0xb, '\f', '\r', 0x1f, 0x7f, 0x85, 0x2028, 0x2029, 0xfeff, 0xfffd, 0xffff, 0x1f6a8, '<', '>', '&', '"', '\\', '/', 'u'})),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
}

func detail() *rapid.Generator[map[string]any] {
	return rapid.MapOf(rapid.StringOf(rapid.RuneFrom([]rune("abAB_\x00\"\\<~\x7f"))), anyValue(4))
}

func anyValue(depth int) *rapid.Generator[any] {
	integer := rapid.Map(rapid.StringMatching(`-?[1-9][0-9]{0,40}`), func(s string) any { return json.Number(s) })
	scalars := []*rapid.Generator[any]{text().AsAny(), rapid.Int64().AsAny(), rapid.Uint64().AsAny(), integer, rapid.Bool().AsAny(), rapid.Just[any](nil)}
	if depth == 0 {
		return rapid.OneOf(scalars...)
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return anyValue(depth - 1) })
	return rapid.OneOf(append(scalars, rapid.SliceOfN(inner, 0, 4).AsAny(),
		rapid.MapOfN(rapid.StringMatching(`[a-z]{0,3}`), inner, 0, 4).AsAny())...)
}

func drawEntry(t *rapid.T) audit.Entry {
	s := func(name string) string { return text().Draw(t, name) }
	return audit.Entry{
		Time: time.Unix(rapid.Int64Range(-6e10, 2e11).Draw(t, "time"), rapid.Int64Range(0, 999999999).Draw(t, "nanos")),
		Kind: audit.Kind(s("kind")), Actor: s("actor"), Service: s("service"), Incident: s("incident"), Step: s("step"), Action: s("action"),
		Detail: detail().Draw(t, "detail"),
	}
}

// TestAnyEntryIsValidJSONThatKeepsItsSum compares with encoding/json's reading:
// the canonical form means what was meant, and reading it changes nothing.
func TestAnyEntryIsValidJSONThatKeepsItsSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, canonical, err := drawEntry(t).Seal(rapid.Int64Range(0, 1<<53).Draw(t, "seq"), audit.ZeroHash)
		if err != nil {
			t.Fatal(err)
		}
		back, err := audit.ParseEntry(canonical, e.Hash)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back, e) || back.Sum() != e.Hash || fmt.Sprintf("%x", sha256.Sum256(canonical)) != e.Hash {
			t.Fatalf("sealed %+v, read %+v", e, back)
		}
		var plain map[string]any
		dec := json.NewDecoder(bytes.NewReader(canonical))
		dec.UseNumber()
		if err := dec.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(plain["detail"], any(e.Detail)) || plain["actor"] != e.Actor {
			t.Fatalf("%s means %v", canonical, plain)
		}
		for i := range canonical {
			if canonical[i] < ' ' {
				t.Fatalf("a raw control character in %q", canonical)
			}
		}
	})
}

// The sequence number is the first integer that a float64 does not hold.
func TestASequenceNumberBeyondWhatAFloatHoldsIsReadAsItWasSealed(t *testing.T) {
	e, canonical, err := audit.Entry{Detail: map[string]any{}}.Seal(1<<53, audit.ZeroHash)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := audit.ParseEntry(canonical, e.Hash); err != nil || back.Seq != 1<<53+1 || back.Sum() != e.Hash {
		t.Fatalf("sealed %+v, read %+v: %v", e, back, err)
	}
}

func TestAnyChangeToAnEntryChangesItsSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _, err := drawEntry(t).Seal(1, audit.ZeroHash)
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := drawEntry(t).Seal(1, audit.ZeroHash)
		if err != nil {
			t.Fatal(err)
		}
		a.Hash, b.Hash = "", ""
		if same := reflect.DeepEqual(a, b); same != (a.Sum() == b.Sum()) {
			t.Fatalf("%+v and %+v: equal %v, sums equal %v", a, b, same, a.Sum() == b.Sum())
		}
	})
}
