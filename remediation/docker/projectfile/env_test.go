package projectfile

import (
	"bytes"
	"strings"
	"testing"
)

func TestSetEnvChangesOneValueAndNothingElse(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"plain", "A=x\nFLAG=1\nB=y\n", "A=x\nFLAG=0\nB=y\n"},
		{"already", "FLAG=0\n", "FLAG=0\n"},
		{"comments and order", "# top\nFLAG=1 # why\n\n#FLAG=9\nB=y # b\n", "# top\nFLAG=0 # why\n\n#FLAG=9\nB=y # b\n"},
		{"no blank before the hash: part of the value", "FLAG=1#x\n", "FLAG=0\n"},
		{"double quotes stay", "FLAG=\"1\" # q\n", "FLAG=\"0\" # q\n"},
		{"single quotes stay", "FLAG='1'\n", "FLAG='0'\n"},
		{"export stays", "export FLAG=1\n", "export FLAG=0\n"},
		{"spaces stay", "  FLAG = 1  \nB=2\n", "  FLAG = 0  \nB=2\n"},
		{"CRLF", "A=1\r\nFLAG=1\r\nB=2\r\n", "A=1\r\nFLAG=0\r\nB=2\r\n"},
		{"CRLF, appended", "A=1\r\n", "A=1\r\nFLAG=0\r\n"},
		{"no newline at the end", "A=1\nFLAG=1", "A=1\nFLAG=0"},
		{"no newline at the end, appended", "A=1", "A=1\nFLAG=0"},
		{"the last of two wins", "FLAG=1\nFLAG=0.5\nB=2\n", "FLAG=1\nFLAG=0\nB=2\n"},
		{"empty value", "FLAG=\nB=2\n", "FLAG=0\nB=2\n"},
		{"no value of its own", "FLAG\nB=2\n", "FLAG\nB=2\nFLAG=0\n"},
		{"no value of its own, comment", "FLAG# shell", "FLAG# shell\nFLAG=0"},
		{"empty file", "", "FLAG=0\n"},
		{"only a comment", "# FLAG=1", "# FLAG=1\nFLAG=0"},
		{"another key ends with it", "XFLAG=1\nFLAGX=1\n", "XFLAG=1\nFLAGX=1\nFLAG=0\n"},
		{"inside another value", "A=\"x\nFLAG=1\ny\"\nB=2\n", "A=\"x\nFLAG=1\ny\"\nB=2\nFLAG=0\n"},
		{"an open quote is skipped", "A=\"x\nFLAG=1\n", "A=\"x\nFLAG=0\n"},
		{"escaped quote", `A="\"" ` + "\nFLAG=1\n", `A="\"" ` + "\nFLAG=0\n"},
		{"byte order mark", "\xef\xbb\xbfFLAG=1\n", "\xef\xbb\xbfFLAG=0\n"},
		{"secrets untouched", "PASS=a b'c\"d$e\nFLAG=1\n", "PASS=a b'c\"d$e\nFLAG=0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := ReadEnv([]byte(c.file), "FLAG")
			got, err := SetEnv([]byte(c.file), "FLAG", "0")
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("set:\n got %q\nwant %q", got, c.want)
			}
			if back := PutEnv(got, "FLAG", before); string(back) != c.file {
				t.Errorf("put back:\n got %q\nwant %q", back, c.file)
			}
		})
	}
}

func TestSetEnvRefusesAValueThatWouldNeedQuoting(t *testing.T) {
	for _, v := range []string{"a b", "$X", "it's", "x\ny", "#"} {
		if out, err := SetEnv([]byte("FLAG=1\n"), "FLAG", v); err == nil {
			t.Errorf("%q was written: %q", v, out)
		}
	}
}

func FuzzEnv(f *testing.F) {
	for _, s := range []string{
		"A=1\nFLAG=1\n", "FLAG='1'\r\nB=\"x\ny\"", "export FLAG = 1 # c", "FLAG", "FLAG=\"1", "'FLAG'=1", "A='x\\' FLAG=1\nB='",
		"\xef\xbb\xbfFLAG=\n\n", "FLAG=1\vFLAG=2", "FLAG='a'b\nFLAG=\u00a0#", "=FLAG\nFLAG==1", "FLAG=1\rFLAG=2", "A=1\nFLAG", "FLAG=\\",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		before := ReadEnv(file, "FLAG")
		got, err := SetEnv(file, "FLAG", "0")
		if err != nil {
			t.Fatalf("%q: %v", file, err)
		}
		if b, ok := lastEnv(got, "FLAG"); !ok || b.bare || b.value != "0" {
			t.Fatalf("%q -> %q: reads as %+v", file, got, b)
		}
		if again, err := SetEnv(got, "FLAG", "0"); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q -> %q, set again -> %q, %v", file, got, again, err)
		}
		if a, b := others(file), others(got); a != b {
			t.Fatalf("%q -> %q: other bindings %q became %q", file, got, a, b)
		}
		// Every byte outside of the flag's own binding is as it was.
		if b, ok := lastEnv(file, "FLAG"); ok && !b.bare {
			if !bytes.HasPrefix(got, file[:b.from]) || !bytes.HasSuffix(got, file[b.to:]) {
				t.Fatalf("%q -> %q: bytes beside the value changed", file, got)
			}
		} else if !bytes.HasPrefix(got, file) {
			t.Fatalf("%q -> %q: bytes before the new line changed", file, got)
		}
		if back := PutEnv(got, "FLAG", before); !bytes.Equal(back, file) {
			t.Fatalf("%q -> %q -> %q: not put back", file, got, back)
		}
	})
}

// others renders all bindings of other keys.
func others(file []byte) string {
	var s []string
	for _, b := range parseEnv(file) {
		if b.key != "FLAG" {
			s = append(s, b.key+"\x00"+b.value)
		}
	}
	return strings.Join(s, "\x01")
}
